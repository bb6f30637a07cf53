"""What every room's `Problem` can do: change, form grids, and become plain data and back."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

_BY_ROOM: dict[str, type[BaseProblem]] = {}


@dataclass(frozen=True, kw_only=True)
class BaseProblem:
    """Base of the frozen, keyword-only dataclass `Problem` of a room.

    A room derives from it, sets `room` to its own module's name, and checks its fields in
    ``__post_init__``, where `_set` stores the checked values. Fields hold numbers, strings,
    booleans, None and tuples of these, so that problems compare and hash by value.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> from overparam import _check
    >>> from overparam._problem import BaseProblem
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Problem(BaseProblem):
    ...     room: ClassVar[str] = "pendulum"
    ...     length: float
    ...
    ...     def __post_init__(self):
    ...         self._set(length=_check.real("length", self.length, minimum=0.0))
    >>> Problem(length=1).replace(length=2)
    Problem(length=2.0)
    """

    room: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _BY_ROOM[cls.room] = cls

    def _set(self, **values: Any) -> None:
        """Store checked values during ``__post_init__`` of the frozen instance."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def _refuse_unknown(cls, names: Mapping[str, Any]) -> None:
        known = [field.name for field in dataclasses.fields(cls)]
        for name in names:
            if name not in known:
                raise TypeError(
                    f"{cls.room}.{cls.__name__} has no parameter {name!r}; "
                    f"known are {', '.join(known)}"
                )

    def replace(self, **changes: Any) -> Self:
        """Return the same problem with some parameters changed.

        Parameters
        ----------
        **changes
            New values by parameter name.

        Returns
        -------
        Problem
            A new problem, validated like any other.

        Raises
        ------
        TypeError
            For a name that is no parameter of the problem.
        ValueError
            If the changed problem is not valid.

        Examples
        --------
        >>> import overparam as op
        >>> op.sgd.Problem(width=4, teacher_width=2, lr=0.1).replace(lr=0.2).lr
        0.2
        """
        self._refuse_unknown(changes)
        return dataclasses.replace(self, **changes)

    @classmethod
    def grid(cls, **axes: Any) -> list[Self]:
        """Return one problem for every combination of the given values.

        Parameters
        ----------
        **axes
            Parameters by name. A list, a range or a 1-D array is an axis of the grid; anything
            else (a number, a string, a tuple, None) is the same in all problems.

        Returns
        -------
        list of Problem
            The Cartesian product, the last axis running fastest.

        Raises
        ------
        TypeError
            For a name that is no parameter of the problem.
        ValueError
            If a combination is not a valid problem, or an axis is an array that is not 1-D.

        Examples
        --------
        >>> import overparam as op
        >>> problems = op.sgd.Problem.grid(width=[2, 4], teacher_width=2, lr=[0.1, 0.2, 0.3])
        >>> len(problems), problems[1].width, problems[1].lr
        (6, 2, 0.2)
        """
        cls._refuse_unknown(axes)
        values: list[list[Any]] = []
        for name, axis in axes.items():
            if isinstance(axis, np.ndarray) and axis.ndim > 0:
                if axis.ndim > 1:
                    raise ValueError(
                        f"{name} must be a 1-D array to be an axis of the grid, "
                        f"but was of shape {axis.shape}"
                    )
                values.append(axis.tolist())
            elif isinstance(axis, (list, range)):
                values.append(list(axis))
            else:
                values.append([axis])
        return [cls(**dict(zip(axes, point, strict=True))) for point in itertools.product(*values)]

    def to_dict(self) -> dict[str, Any]:
        """Return the room and the parameters as plain data that JSON can hold exactly.

        Returns
        -------
        dict
            ``{"room": ..., name: value, ...}``; `from_dict` is the inverse.

        Examples
        --------
        >>> import overparam as op
        >>> op.sgd.Problem(width=4, teacher_width=2, lr=0.1).to_dict()["room"]
        'sgd'
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"room": self.room, **values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a problem from what `to_dict` returned, also after a passage through JSON.

        Parameters
        ----------
        data : mapping
            Room and parameters. Lists become tuples.

        Returns
        -------
        Problem
            Of the room named in `data`; any room's when called on `BaseProblem`.

        Raises
        ------
        ValueError
            If the room is unknown or not that of this class.

        Examples
        --------
        >>> import json, overparam as op
        >>> problem = op.sgd.Problem(width=4, teacher_width=2, lr=0.1)
        >>> op.sgd.Problem.from_dict(json.loads(json.dumps(problem.to_dict()))) == problem
        True
        """
        values = {name: _with_tuples(value) for name, value in data.items()}
        room = values.pop("room", None)
        import_room(room)
        problem_class = _BY_ROOM.get(room)
        if problem_class is None or not issubclass(problem_class, cls):
            raise ValueError(
                f"data must be a problem that {cls.__name__} can hold, not of {room!r}"
            )
        if problem_class is not cls:  # whose own form of plain data may differ
            return problem_class.from_dict(data)
        return problem_class(**values)


def import_room(room: object) -> None:
    """Import the module of a room, which registers its classes; an unknown room is ignored.

    Examples
    --------
    >>> from overparam._problem import import_room
    >>> import_room("no_such_room")
    """
    if isinstance(room, str) and room.isidentifier():
        try:
            importlib.import_module(f"overparam.{room}")
        except ModuleNotFoundError as error:
            if error.name != f"overparam.{room}":
                raise


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, (list, tuple)) else value
