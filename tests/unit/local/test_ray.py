from serving.local.ray import own_error, reason

REMOTE = """\x1b[36mray::HAProxyManager.ready()\x1b[39m (pid=4711, ip=127.0.0.1, actor_id=0a1b, repr=<HAProxyManager>)
  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 449, in result
    return self.__get_result()
RuntimeError: HAProxy crashed during startup: cannot bind socket (Address already in use) [0.0.0.0:38171]
"""


def test_an_error_of_another_process_is_one_line_without_colours_and_pids():
    said = reason(RuntimeError(REMOTE))
    assert said == (
        "HAProxyManager.ready: RuntimeError: HAProxy crashed during startup: "
        "cannot bind socket (Address already in use) [0.0.0.0:38171]"
    )


def test_an_error_of_this_process_is_its_first_line():
    assert reason(ValueError("\x1b[31mno room\x1b[0m\nmore of it")) == "no room"
    assert reason(OSError()) == "OSError"
    assert reason(RuntimeError("ray::Worker.run() (pid=12, ip=127.0.0.1)")) == "Worker.run"


FAILED = """The deployment failed to start 6 times in a row. See controller logs for details. Error:
\x1b[36mray::ServeReplica:medserve:Ingress.initialize_and_get_metadata()\x1b[39m (pid=9, ip=127.0.0.1)
RuntimeError: Traceback (most recent call last):
  File "/srv/serving/pools/warmup.py", line 61, in run
    raise SetupError(slow(f"model {name}", "warm-up", answer_s)) from fault
serving.errors.SetupError: model sam-vit-h did not answer its warm-up within 300 s
"""


def test_of_a_replica_that_does_not_start_our_own_word_is_told():
    assert own_error(FAILED) == "model sam-vit-h did not answer its warm-up within 300 s"
    assert own_error("A replica failed to start. Error:\nOSError: no port") == ""
