/* What scrolls sideways can be reached, and scrolled, with the keyboard. */
document.addEventListener("DOMContentLoaded", () => {
  const reach = () => document.querySelectorAll(".md-typeset :is(pre > code, table, .md-typeset__table, .md-typeset__scrollwrap)")
    .forEach(box => { if (box.scrollWidth > box.clientWidth) box.tabIndex = 0 })
  setTimeout(reach) // tables are wrapped by the theme first
  window.addEventListener("resize", reach)
})
