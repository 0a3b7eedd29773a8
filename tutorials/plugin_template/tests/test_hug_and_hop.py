from ppcore_hug_and_hop.kernel import hug_and_hop

from ppcore.testing import parametrize_engine_checks


@parametrize_engine_checks([hug_and_hop()])
def test_checks(check):
    check()
