"""DeepSpeed says nothing on stdout, where sdx has its tables."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.whole

# Stands for a GPU in an environment without the CUDA toolkit, as torch's wheels make it.
GPU = """
import torch, torch.utils.cpp_extension
torch.version.cuda = "12.8"
torch.utils.cpp_extension.CUDA_HOME = None
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
import sdx.training.quiet
"""


def test_no_warning_for_each_kernel_that_cannot_be_compiled():
    done = subprocess.run([sys.executable, "-c", GPU], capture_output=True, text=True, check=True)
    assert done.stdout == ""
