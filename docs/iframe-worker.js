/* The search runs in a worker, and browsers start none from a page that is opened from the disk.
   There it runs in a hidden frame instead, which answers by the same messages. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.onmessage = null
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = "<!doctype html><title>search</title>"
      frame.addEventListener("load", () => {
        const home = frame.contentWindow
        home.postMessage = message => this.give(message)
        home.importScripts = (...names) => Promise.all(names.map(name => this.load(home, name)))
        this.load(home, url).then(() => {
          this.home = home
          this.waiting.splice(0).forEach(message => this.postMessage(message))
        })
      }, { once: true })
      document.body.append(frame)
    }

    /* Run a script in the frame. */
    load(home, url) {
      return new Promise((done, failed) => {
        const script = home.document.createElement("script")
        script.src = new URL(url, document.baseURI)
        script.onload = done
        script.onerror = () => failed(new Error(`${url} cannot be read`))
        home.document.head.append(script)
      })
    }

    /* To the frame; kept until its script is there. */
    postMessage(message) {
      if (this.home) this.home.dispatchEvent(new MessageEvent("message", { data: message }))
      else this.waiting.push(message)
    }

    /* From the frame. */
    give(message) {
      const event = new MessageEvent("message", { data: message })
      if (this.onmessage) this.onmessage(event)
      this.dispatchEvent(event)
    }
  }
}
