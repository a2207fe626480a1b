"""`tutelage` under FSDP without a GPU: accelerate and FSDP are told that a CPU is one.

For `test_train_processes.py`. The sharding, its collectives (over gloo) and all of our own code are the real ones.
"""

import contextlib
import sys
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import _flat_param, _init_utils

import tutelage

plain = PartialState.__init__


def as_if_on_gpus(self: PartialState, *arguments: Any, **named: Any) -> None:
    plain(self, *arguments, **named)
    if self._shared_state["distributed_type"] == DistributedType.MULTI_CPU:  # of which it makes DDP whatever is asked
        self._shared_state["distributed_type"] = DistributedType.MULTI_GPU


PartialState.__init__ = as_if_on_gpus
_init_utils._get_compute_device = lambda *_: torch.device("cpu")  # it compares cpu with cpu:0
# the whole weights are on the CPU already, and moving them there would free them
_flat_param.FlatParamHandle.to_cpu = contextlib.contextmanager(lambda self: (yield))

tutelage.main(sys.argv[1:])
