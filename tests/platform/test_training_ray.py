"""What Ray Train says of a training is said as a user would want it."""

from __future__ import annotations

import importlib
import logging

import pytest
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from liftgs_platform.training_ray import _CONTROLLER, _Waiting


def test_waiting_for_room_is_told_in_one_line_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    logger = importlib.import_module(_CONTROLLER).logger
    assert isinstance(logger, logging.Logger)
    assert logger.name == _CONTROLLER, "the filter sits where Ray logs it"
    waiting = _Waiting("1 x 2 CPU")

    def log(error: Exception) -> None:
        logger.error("Error in control loop iteration: %s", error, exc_info=error)

    logger.addFilter(waiting)
    logger.addHandler(caplog.handler)
    try:
        for error in (WorkerGroupStartupTimeoutError(1), WorkerGroupStartupTimeoutError(1), ValueError("a fault")):
            log(error)
        waiting._told -= 61
        log(WorkerGroupStartupTimeoutError(1))
    finally:
        logger.removeFilter(waiting)
        logger.removeHandler(caplog.handler)
    records = list({id(record): record for record in caplog.records}.values())  # the root may have had them too
    wait = "waiting until the cluster has 1 x 2 CPU free; `ray status` tells what is taken"
    assert [record.getMessage() for record in records] == [wait, "Error in control loop iteration: a fault", wait]
    assert [bool(record.exc_info) for record in records] == [False, True, False]
