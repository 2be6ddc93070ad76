"""Image classifier that was exported by m2sd; it needs torch and safetensors, and Pillow to open images.

At a terminal: python model.py IMAGE...
"""

import json
import operator
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # from the orientation of EXIF to PIL.Image.Transpose


class Answer(NamedTuple):
    """The answer to one image."""

    label: str  # the likeliest class
    probability: float  # of that class
    probabilities: list[float]  # of all classes, in the order of `Model.classes`
    unknown: bool  # True if the image is probably of no class that was taught; False if no threshold was fitted
    score: float  # it is unknown below `unknown_below` in config.json


class Model:
    """Network, classifier and pre-processing, read from the folder in which this file lies.

    Args:
        folder: that holds config.json, network.json and model.safetensors.
        device: of torch.
    """

    def __init__(self, folder: Path | str = Path(__file__).parent, device: str = "cpu") -> None:
        self.config = json.loads(Path(folder, "config.json").read_text("utf-8"))
        network = json.loads(Path(folder, "network.json").read_text("utf-8"))
        self.operations, self.outputs = network["operations"], network["outputs"]
        self.functions = [_function(each["operation"]) for each in self.operations]
        self.tensors = load_file(Path(folder, "model.safetensors"), device)
        self.device = torch.device(device)
        self.classes = [self.config["id2label"][str(index)] for index in range(self.config["num_labels"])]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) uint8 of `prepare` to logits (B, C), whose softmax is calibrated, and scores (B,)."""
        values: dict[str, Any] = {"images": images.to(self.device)}
        for each, function in zip(self.operations, self.functions, strict=True):
            arguments = [self._value(argument, values) for argument in each["arguments"]]
            named = {name: self._value(argument, values) for name, argument in each["named"].items()}
            values[each["name"]] = function(*arguments, **named)
            for name in each["last"]:  # no later operation takes these values; their memory is free again
                del values[name]
        logits, scores = (self._value(each, values) for each in self.outputs)
        return logits, scores

    def predict(self, images: Tensor) -> list[Answer]:
        """Answer images (B, 3, H, W) uint8 of `prepare`."""
        logits, scores = self(images)
        shares = logits.cpu().double().softmax(dim=1)
        below = self.config["unknown_below"]
        return [
            Answer(self.classes[index], row[index], row, below is not None and score < below, score)
            for index, row, score in zip(shares.argmax(dim=1).tolist(), shares.tolist(), scores.tolist(), strict=True)
        ]

    def prepare(self, image: Any) -> Tensor:
        """Resize and crop an image of Pillow to (3, H, W) uint8; torch.stack makes a batch of several."""
        from PIL import ExifTags, Image, ImageOps

        how = self.config["preprocessing"]
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise ValueError("grey of more than 8 bits; save it with 8 bits")
        try:
            turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        except (ValueError, TypeError, SyntaxError, OSError):  # a damaged block of EXIF tells no orientation
            turn = None
        image = image if turn is None else image.transpose(Image.Transpose(turn))
        if image.has_transparency_data:  # it is laid on white
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        short, long = sorted(image.size)
        if how["resize_what"] == "both sides":
            size = (how["resize"], how["resize"])
        else:
            if long > 16 * short:  # only the middle is looked at
                image = ImageOps.fit(image, (min(image.width, 16 * short), min(image.height, 16 * short)))
            size = (int(how["resize"] * image.width / short), int(how["resize"] * image.height / short))
        if size != image.size:
            image = image.resize(size, Image.Resampling[how["resize_how"].partition(",")[0].upper()])
        crop = how["centre_crop"]
        left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
        return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(crop, crop, 3).permute(2, 0, 1)

    def _value(self, argument: Any, values: dict[str, Any]) -> Any:
        """Decode an argument of an operation: a JSON object stands for a value that JSON has no word for."""
        if isinstance(argument, list):
            return [self._value(each, values) for each in argument]
        if not isinstance(argument, dict):
            return argument
        ((kind, content),) = argument.items()
        if kind == "value":
            return values[content]
        if kind == "tensor":
            return self.tensors[content]
        if kind == "float":
            return float(content)
        if kind == "torch":  # a dtype, a layout or a memory format
            found = getattr(torch, content)
            if isinstance(found, torch.dtype | torch.layout | torch.memory_format):
                return found
        if kind == "device":
            return self.device
        raise ValueError(f"network.json: {argument} is no argument")


def _function(name: str) -> Any:
    """Look up an operation: one of torch's aten, or of Python's numbers and lists."""
    space, _, rest = name.partition(".")
    if space == "python" and rest in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem"):
        return getattr(operator, rest)
    if space != "aten":
        raise ValueError(f"network.json: {name} is no operation")
    operation, _, overload = rest.partition(".")
    return getattr(getattr(torch.ops.aten, operation), overload)


def main() -> None:
    """Print the answer to each image that is named, as one line of JSON; end with 1 if one cannot be read."""
    from PIL import Image

    model, failed = Model(), False
    for name in sys.argv[1:]:
        try:
            with Image.open(name) as image:
                pixels = model.prepare(image)
        except Exception as error:  # Pillow raises many kinds about damaged files
            print(f"{name}: cannot be read ({error})", file=sys.stderr)
            failed = True
        else:
            print(json.dumps({"image": name, **model.predict(pixels[None])[0]._asdict()}))
    sys.exit(failed)


if __name__ == "__main__":
    main()
