import httpx

from serving.client import http_wire, volumes


def test_the_first_line_of_a_volume_is_waited_for_as_long_as_the_deadline_allows():
    with httpx.Client(base_url="http://nowhere", timeout=60.0) as client:
        waits = [
            http_wire.volume_request(client, volumes.call(b"scan", said), volumes.Stream()).extensions["timeout"]["read"]
            for said in ({"deadline_s": 280.0}, {})
        ]
    assert waits[0] >= 280
    assert waits[1] == 60
