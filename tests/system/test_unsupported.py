# SPDX-License-Identifier: MIT
"""`UnsupportedError` is both what its users may already catch, with an errno."""

import errno
import pickle

import pytest

import lowsock
from lowsock._system.errors import unsupported


def test_it_is_an_os_error_with_an_errno_and_a_not_implemented_error():
    with pytest.raises(lowsock.UnsupportedError) as caught:
        unsupported("this platform has no wings")
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, NotImplementedError)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert caught.value.strerror == "this platform has no wings"
    assert str(caught.value) == f"[Errno {errno.EOPNOTSUPP}] this platform has no wings"


def test_the_errno_is_the_one_that_was_given():
    with pytest.raises(lowsock.UnsupportedError) as caught:
        unsupported("this kernel has no wings", errno.ENOSYS)
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_pickled(protocol):
    error = pickle.loads(pickle.dumps(lowsock.UnsupportedError(95, "no wings"), protocol))
    assert type(error) is lowsock.UnsupportedError
    assert error.errno == 95
