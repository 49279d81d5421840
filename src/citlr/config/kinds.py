"""Which generators there are: what each is called, and where its class is; nothing is imported here."""

from typing import TYPE_CHECKING, Literal

# A new generator is a class (see `citlr.generators.learnt`) and a line here.
GENERATORS: dict[str, str] = {
    "dldm": "citlr.generators.diffusion.ldm:DLDM",
    "cldm": "citlr.generators.diffusion.ldm:CLDM",
    "edits": "citlr.generators.edits.generator:EditGenerator",
    "vae": "citlr.generators.rivals.vae:ConditionalVAE",
    "latent-shift": "citlr.generators.rivals.latent_shift:LatentShift",
}
# Somebody else's: only its images are at hand (`citlr.generators.on_disk`).
IMAGES = "images"
if TYPE_CHECKING:
    GeneratorKind = str
else:
    GeneratorKind = Literal[(*GENERATORS, IMAGES)]
