"""m2sd pretrain"""

from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import command
from m2sd_cli.cli.training import report_training, require_recipe
from m2sd_cli.data.catalogue import find_info


def pretrain(
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="cifar100, miniimagenet, cub200, demo, one of these with -simulated, or a folder of pictures.",
            show_default=False,
        ),
    ] = None,
    run: options.Run = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", help="resnet20, resnet18-cifar or resnet18.", show_default=False),
    ] = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    momentum: options.Momentum = None,
    weight_decay: options.WeightDecay = None,
    auto_augment: options.AutoAugment = None,
    colour: options.Colour = None,
    cutout: options.Cutout = None,
    classifier: Annotated[
        str | None, typer.Option("--classifier", help="Of the training: cosine or linear.", show_default="cosine")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", help="Factor of the cosine classifier.", show_default="16")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            help="Begin from weights: imagenet (downloaded), a torchvision state dict or safetensors file, or none.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Pixels, for a folder.", show_default="224")
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option("--held-out", help="Share of each base class never to train on, up to 0.5.", show_default=False),
    ] = None,
    images_per_class: Annotated[
        int | None,
        typer.Option("--images-per-class", help="Train on so many images of each base class only.", show_default=False),
    ] = None,
    seed: options.Seed = None,
    recipe: options.RecipeName = None,
    config: options.ConfigFile = None,
    data_root: options.DataRoot = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    deterministic: options.Deterministic = False,
    compile: options.Compile = False,
    skip_bad: options.SkipBad = False,
    resume: options.Resume = False,
    stop_after: options.StopAfter = None,
    save_every: options.SaveEvery = "5m",
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Stage 1: train the network on the base classes.

    What is not given, --data included, comes from --config, then from --recipe, then from the data set's defaults.

    Examples:
      m2sd pretrain --data cifar100

      m2sd pretrain --recipe cifar100-resnet20 --seed 1

      m2sd pretrain --data ./photos --image-size 96 --epochs 30

      m2sd pretrain --resume --stop-after 9m
    """
    limit = None if stop_after is None else options.seconds("--stop-after", stop_after)
    between_saves = options.seconds("--save-every", save_every)
    if data is not None:
        find_info(data)  # a misspelt name is answered before torch is imported
    require_recipe(recipe)

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet):
        stored = m2sd_cli.pretrain(
            data,
            run=run,
            data_root=data_root,
            recipe=recipe,
            config=config,
            device=device,
            precision=precision,
            resume=resume,
            force=force,
            stop_after=limit,
            save_every=between_saves,
            deterministic=deterministic,
            compile=compile,
            skip_bad=skip_bad,
            backbone=backbone,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            auto_augment=auto_augment,
            colour=colour,
            cutout=cutout,
            classifier=classifier,
            scale=scale,
            init=init,
            image_size=image_size,
            held_out=held_out,
            images_per_class=images_per_class,
            seed=seed,
        )
    folder = stored is not None and stored.manifest.data.kind == "folder"
    next_step = command("distill", run, " --data DIR" if folder else "")
    report_training("pretrain", stored, m2sd_cli.open_run(run), [next_step], json, quiet)
