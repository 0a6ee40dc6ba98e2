"""What the service counts and times, for /metrics; the figures of all worker processes are told together."""

from functools import cache

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    def __init__(self) -> None:
        # Not before a worker runs: BentoML names the folder in which the processes share their figures only then.
        from prometheus_client import Counter, Gauge, Histogram

        def name(of: str) -> str:
            return f"mnist_gan_{of}"

        self.images = Counter(name("images"), "Images made for answers.", ["route"])
        self.rejected = Counter(name("rejected"), "Requests answered with an error, by its code.", ["reason"])
        self.waiting_images = Gauge(
            name("waiting_images"), "Images that no run of the network has taken yet.", multiprocess_mode="livesum"
        )
        self.batch_images = Histogram(name("batch_images"), "Images a run of the network.", buckets=IMAGES)
        self.queue_seconds = Histogram(
            name("queue_seconds"), "From a request's arrival in the queue to its first run.", buckets=SECONDS
        )
        self.model_seconds = Histogram(name("model_seconds"), "A run of the network.", buckets=SECONDS)
        self.encode_seconds = Histogram(
            name("encode_seconds"), "Turning images into an answer.", ["route"], buckets=SECONDS
        )
        self.model_info = Gauge(
            name("model_info"),
            "1, of the model that is being served.",
            ["name", "file_sha256", "dataset", "precision"],
            multiprocess_mode="livemax",
        )


@cache
def metrics() -> Metrics:
    """Those of this process, made when they are first asked for."""
    return Metrics()
