"""datatrove's own four steps of MinHash over a folder of Parquet; run by the Python that has datatrove, called by bench_dedup.py.

    PYTHON scripts/datatrove_minhash.py CORPUS WORKDIR PROCESSES       prints {step: seconds}

14 bands of 8 of 64 bits, its advice for 0.75 to 0.8; as many tasks as processes, but a task a band where it wants that.
"""

import json
import sys
import time

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main(corpus, work, processes):
    config, seconds = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8), {}
    reader = ParquetReader(corpus, text_key="text", id_key="id")
    steps = {
        "signature": ([reader, MinhashDedupSignature(f"{work}/signatures", config=config)], processes),
        "buckets": ([MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], config.num_buckets),
        "cluster": ([MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1),
        "filter": ([reader, MinhashDedupFilter(f"{work}/remove"), JsonlWriter(f"{work}/kept")], processes),
    }
    for name, (pipeline, tasks) in steps.items():
        start = time.perf_counter()
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=processes, logging_dir=f"{work}/log/{name}", skip_completed=False).run()
        seconds[name] = round(time.perf_counter() - start, 2)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
