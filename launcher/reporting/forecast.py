"""What the plan can say of the report to come: significance, and the rules, as predicted.

1. The registered comparison: whether it can be made, and what so many seeds can show.
2. The artifact's bytes, by the parameters, the published bits a weight, and the code as it ships.
3. Training and evaluation seconds, where published runs of the same work tell them.
"""

from __future__ import annotations

from golf.bundle import bundle_bytes
from golf.config import Job
from launcher.checks import Check, Verdict, num_parameters
from launcher.errors import LaunchError
from launcher.plan import Plan
from launcher.reporting.baselines import median_std_bpb
from launcher.reporting.comparison import amount_text
from launcher.reporting.compliance import RULE_GPUS, outside_the_rule
from launcher.reporting.policy import Policy
from launcher.reporting.power import Design, alike, least_difference
from launcher.reporting.scores import Scores

BITS_PER_WEIGHT = 4.6
"""Of the published int6 models after zstd-22: 27.0 M parameters in 15.5 MB (pull request 414)."""
TTT_SECONDS = (408.0, 617.0)
"""Published TTT evaluations of FineWeb on 8 H100s: pull request 549 with FlashAttention-3, and the
same protocol with SDPA."""
TTT_PARAMETERS = 27_000_000
"""Of the models so measured."""


def forecast(plan: Plan, policy: Policy) -> tuple[Check, ...]:
    """One check a prediction."""
    job = plan.job
    # Nobody takes a job without GPUs for a record; of all others it must be said aloud.
    loud = Verdict.WARN if job.resources.gpus_per_node else Verdict.OK
    outside = outside_the_rule((), job)
    return (
        _significance(plan, policy),
        _artifact(job),
        _training(job),
        *_evaluation(job),
        *(Check(name="600 s rule", verdict=loud, figure=f"outside: {why}") for why in outside),
    )


def _significance(plan: Plan, policy: Policy) -> Check:
    baseline, count = policy.baseline, len(plan.seeds)
    if baseline is None:
        return _unregistered(plan, policy)
    problem, fix = _obstacle(plan, policy, baseline)
    if problem:
        return Check(name="significance", verdict=Verdict.FAIL, figure=problem, fix=fix)
    own = baseline.summary("bpb")
    std = own.std if own and own.std else median_std_bpb()
    design = Design(
        std=std,
        baseline_std=std,
        baseline_count=own.count if own and policy.test != "one-sample" else 0,
        alpha=policy.alpha,
        margin=_margin_bpb(policy, baseline),
        test=policy.test,
    )
    least = least_difference(design, count)
    if least is None:
        figure = f"{count} seeds give no verdict against {baseline.name}, whatever they score"
        return Check(name="significance", verdict=Verdict.WARN, figure=figure)
    whose = "its" if own and own.std else "the published records'"
    unpaired = _test_note(policy)
    figure = (
        f"{policy}; against {baseline.name} {count} seeds show, 4 times of 5, a true difference "
        f"of {amount_text(least, 'bpb')} BPB, by {whose} spread of {std:.5f}{unpaired}"
    )
    return Check(name="significance", verdict=Verdict.OK, figure=figure)


def _unregistered(plan: Plan, policy: Policy) -> Check:
    """What so many seeds could show against as many others of the published spread."""
    name, std, count = "significance", median_std_bpb(), len(plan.seeds)
    least = least_difference(alike(std, count, policy.alpha), count)
    if least is None:
        figure = "one seed gives no verdict against any baseline"
        return Check(name=name, verdict=Verdict.OK, figure=figure)
    against = "no baseline (--baseline pr1493 names one)"
    if plan.variants:
        against = "every variant against the first"
    shares = any(not variant.trains for variant in plan.variants)
    if shares and policy.test != "paired":
        against += "; as variants share their training, --test paired sees smaller differences"
    figure = (
        f"{policy}; {against}; {count} seeds against {count} show, 4 times of 5, a true difference "
        f"of {amount_text(least, 'bpb')} BPB beyond the margin, by the published records' spread "
        f"of {std:.5f}{_test_note(policy)}"
    )
    return Check(name=name, verdict=Verdict.OK, figure=figure)


def _test_note(policy: Policy) -> str:
    """How far the power of a t test stands for that of the policy's."""
    if policy.test == "paired":
        return ", less where pairing helps"
    return ", reckoned as by Welch's test" if policy.test == "permutation" else ""


def _margin_bpb(policy: Policy, baseline: Scores) -> float:
    """In BPB, by the baseline's bytes per token, as the run's own are not known yet."""
    try:
        return policy.margin.within("bpb", baseline.bytes_per_token)
    except LaunchError:
        return 0.0


def _obstacle(plan: Plan, policy: Policy, baseline: Scores) -> tuple[str, str]:
    """Why the registered comparison will give no verdict, and the fix."""
    theirs = baseline.by_seed(policy.unit)
    if plan.job.data.source == "embedded" and baseline.validation.text == "fineweb":
        problem = f"the job is evaluated on the embedded corpus and {baseline.name} on fineweb"
        return problem, "name an experiment on the same corpus with --baseline"
    if policy.test != "one-sample" and len(theirs) < 2:
        problem = f"{baseline.name} has {len(theirs)} published seeds"
        return problem, "--test one-sample holds the seeds against its mean"
    common = set(plan.seeds) & set(theirs)
    if policy.test == "paired" and len(common) < 2:
        seeds = ",".join(map(str, theirs))
        return f"{len(common)} seeds in common with {baseline.name}", f"--seeds {seeds}"
    return "", ""


def _artifact(job: Job) -> Check:
    code = bundle_bytes(job)
    model = round(num_parameters(job.model) * BITS_PER_WEIGHT / 8)
    limit = job.budget.artifact_bytes
    figure = (
        f"about {(model + code) / 1e6:.2f} MB with {code / 1e6:.2f} MB of code, of "
        f"{limit / 1e6:.2f} MB"
    )
    if model + code > limit:
        fix = "a smaller model.mlp_mult, model.num_layers or model.bigram_vocab_size saves bytes"
        return Check(name="artifact", verdict=Verdict.WARN, figure=figure, fix=fix)
    return Check(name="artifact", verdict=Verdict.OK, figure=figure)


def _training(job: Job) -> Check:
    clock, limit = job.schedule.max_wallclock_seconds, job.budget.train_seconds
    if clock == 0:
        figure = f"{job.schedule.iterations:,} steps, whatever they take; {limit:.0f} s allowed"
        return Check(name="training", verdict=Verdict.OK, figure=figure)
    figure = f"stops by its clock at {clock:.0f} s of {limit:.0f} s"
    if clock > limit:
        fix = f"--set schedule.max_wallclock_seconds={limit:g}"
        return Check(name="training", verdict=Verdict.WARN, figure=figure, fix=fix)
    return Check(name="training", verdict=Verdict.OK, figure=figure)


def _evaluation(job: Job) -> tuple[Check, ...]:
    """For FineWeb on GPUs only; nothing published tells the time of other work."""
    gpus = job.resources.gpus_per_node * job.resources.nodes
    if job.data.source != "challenge" or gpus == 0:
        return ()
    scale = RULE_GPUS / gpus * num_parameters(job.model) / TTT_PARAMETERS
    low, high = (seconds * scale for seconds in TTT_SECONDS)
    limit = job.budget.eval_seconds
    figure = (
        f"TTT about {low:.0f} s with FlashAttention-3, {high:.0f} s with SDPA, of {limit:.0f} s"
    )
    verdict = Verdict.WARN if high > limit else Verdict.OK
    return (Check(name="evaluation", verdict=verdict, figure=figure),)
