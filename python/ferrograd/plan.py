"""The compiled training step of a trainer, to be looked at."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ferrograd.samples import Samples

if TYPE_CHECKING:
    from ferrograd.step_cost import StepCost
    from ferrograd.trainer import Trainer

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What `Trainer.plan` returns; printed, it is the list of instructions.

    Attributes
    ----------
    rows : int
        Of a batch.
    instructions : tuple of str
        In order of their phases. A ``+`` joins operations that are one pass: ``matmul+bias+relu``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Sequential(fg.nn.Linear(2, 8), fg.nn.Tanh(), fg.nn.Linear(8, 2))
    >>> trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()))
    >>> X, y = fg.datasets.make_moons(n_samples=64, seed=0)
    >>> history = trainer.fit(X, y, epochs=1, batch_size=32)
    >>> trainer.plan.rows, trainer.plan.instructions[2:4]
    (32, ('matmul+bias+tanh', 'matmul+bias'))
    """

    rows: int
    instructions: tuple[str, ...]
    trainer: "Trainer" = field(repr=False, compare=False)
    samples: Samples = field(repr=False, compare=False)
    accumulate: int = field(default=1, repr=False)

    def cost(self, steps: int = 20) -> "StepCost":
        """Measure where the time of a step goes, and how near its products come to the machine's peak.

        A copy of the trainer makes the steps, on one thread, with a look at the clock after each part. The
        rows are the first that the trainer has seen.

        Parameters
        ----------
        steps : int, default 20
            Steps of which the mean is taken.

        Returns
        -------
        StepCost
            ``print`` shows a table; ``parts``, ``seconds``, ``peak`` and ``to_dict()`` give the numbers.

        Raises
        ------
        ConfigError
            If `steps` is out of range, the optimizer is L-BFGS, or the model is no Module.

        Examples
        --------
        >>> import ferrograd as fg
        >>> model = fg.nn.Sequential(fg.nn.Linear(2, 8), fg.nn.Tanh(), fg.nn.Linear(8, 2))
        >>> trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()))
        >>> X, y = fg.datasets.make_moons(n_samples=64, seed=0)
        >>> history = trainer.fit(X, y, epochs=1, batch_size=32)
        >>> cost = trainer.plan.cost()
        >>> [part.name for part in cost.parts if part.flop][:3]
        ['matmul+bias+tanh', 'matmul+bias', 'matmul+tanh_grad']
        """
        from ferrograd.step_cost import measure

        return measure(self, steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dicts, lists and numbers."""
        return {"rows": self.rows, "instructions": list(self.instructions)}

    def __str__(self) -> str:
        fused = sum(count for name, count in Counter(self.instructions).items() if "+" in name)
        head = f"step for {self.rows:,} rows: {len(self.instructions)} instructions, {fused} of them fused"
        return "\n".join([head, *(f"  {name}" for name in self.instructions)])
