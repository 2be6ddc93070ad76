"""m2sd distill"""

from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import command
from m2sd_cli.cli.training import report_training, require_recipe
from m2sd_cli.method import DEFAULT_CLASSIFIER, HEADS


def distill(
    data: Annotated[
        str | None,
        typer.Option("--data", help="The folder of pretrain; not needed for a built-in data set.", show_default=False),
    ] = None,
    run: options.Run = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", help="Epochs of this stage; 0 leaves the network as it is.", show_default=False),
    ] = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    momentum: options.Momentum = None,
    weight_decay: options.WeightDecay = None,
    auto_augment: options.AutoAugment = None,
    colour: options.Colour = None,
    cutout: options.Cutout = None,
    mixing: Annotated[
        str | None,
        typer.Option("--mixing", help="both, mixup or cutmix; none: unmixed images.", show_default="both"),
    ] = None,
    enhancement: Annotated[
        str | None,
        typer.Option("--enhancement", help="full, no-attention or no-pyramid.", show_default="full"),
    ] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="a of lambda ~ Beta(a, a).", show_default="1")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Of the distillation.", show_default="4")
    ] = None,
    ce_weight: Annotated[
        float | None, typer.Option("--ce-weight", help="Cross-entropy of virtual images.", show_default="1")
    ] = None,
    kl_weight: Annotated[
        float | None, typer.Option("--kl-weight", help="Symmetric KL of both branches.", show_default="1")
    ] = None,
    kd_weight: Annotated[
        float | None, typer.Option("--kd-weight", help="Distillation from the enhanced features.", show_default="1")
    ] = None,
    attention_weight: Annotated[
        float | None, typer.Option("--attention-weight", help="Attention transfer.", show_default="100")
    ] = None,
    teacher_weight: Annotated[
        float | None,
        typer.Option(
            "--teacher-weight", help="Cross-entropy of the teacher, the only term that teaches it.", show_default="1"
        ),
    ] = None,
    clean_weight: Annotated[
        float | None,
        typer.Option(
            "--clean-weight", help="Cross-entropy of unmixed images, which the paper does not have.", show_default="0"
        ),
    ] = None,
    pyramid_width: Annotated[
        int | None,
        typer.Option("--pyramid-width", help="Channels of the pyramid for each of the network's.", show_default="1"),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            "--classifier",
            help=f"Of new classes: {HEADS[0]}, as in the paper, {', '.join(HEADS[1:-1])} or {HEADS[-1]}.",
            show_default=DEFAULT_CLASSIFIER,
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            "--views",
            help="Of every image, new ones too: 1 as in the paper, 2 adds its mirror image, more adds shifted crops.",
            show_default="1",
        ),
    ] = None,
    seed: options.Seed = None,
    recipe: options.RecipeName = None,
    config: options.ConfigFile = None,
    data_root: options.DataRoot = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    deterministic: options.Deterministic = False,
    compile: options.Compile = False,
    resume: options.Resume = False,
    stop_after: options.StopAfter = None,
    save_every: options.SaveEvery = "5m",
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Stage 2: distil the network on mixed images, and make session 0 of it.

    A weight of 0 leaves that loss out. The seed and the recipe are pretrain's unless given; --recipe none for none.

    Examples:
      m2sd distill

      m2sd distill --data ./photos --epochs 40

      m2sd distill --epochs 0                       session 0 from plain training
    """
    limit = None if stop_after is None else options.seconds("--stop-after", stop_after)
    between_saves = options.seconds("--save-every", save_every)
    require_recipe(recipe)
    options.check_classifier(classifier)

    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    with reporting(quiet):
        stored = m2sd_cli.distill(
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
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            auto_augment=auto_augment,
            colour=colour,
            cutout=cutout,
            mixing=mixing,
            enhancement=enhancement,
            beta=beta,
            temperature=temperature,
            ce_weight=ce_weight,
            kl_weight=kl_weight,
            kd_weight=kd_weight,
            attention_weight=attention_weight,
            teacher_weight=teacher_weight,
            clean_weight=clean_weight,
            pyramid_width=pyramid_width,
            classifier=classifier,
            views=views,
            seed=seed,
        )
    next_steps = [command("increment", run, " --session 1 --shots DIR"), command("evaluate", run)]
    report_training("distill", stored, m2sd_cli.open_run(run), next_steps, json, quiet)
