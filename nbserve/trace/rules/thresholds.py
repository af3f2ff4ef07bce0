"""From what on a figure is a finding; shares are parts of 1."""

from __future__ import annotations

# A gain below this is noise: whatever promises less is not worth a line.
LEAST_GAIN = 1.03
# With fewer batches than this each finding says that it rests on little.
FEW_BATCHES = 4
# No finding promises more than this: who removes nearly everything meets the next limit first.
MOST_GAIN = 50.0

# Of a request's time.
QUEUE_SHARE = 0.3
# From so many batches ahead on, requests wait because there are too many of them.
QUEUED_BATCHES = 1.3
BATCH_WAIT_SHARE = 0.3
IPC_SHARE = 0.1
STAGE_SHARE = 0.25
PYTHON_SHARE = 0.3
# Attention has to bring some of its inputs into order, which nobody can avoid.
COPY_SHARE = 0.15
ITEM_SHARE = 0.1
LAUNCH_SHARE = 0.25

# Shorter ones are not worth a thought, whatever their share of an even shorter request.
LEAST_BATCH_WAIT_MS = 0.5
LEAST_IPC_MS = 1.0
# Smaller bodies are on their way for as long as one of no bytes.
LARGE_BODY_BYTES = 256 * 1024
LEAST_STAGE_MS = 1.0
# Below this part of preprocess, operators are not what it spends its time on.
ROW_OPS_SHARE = 0.5
# More operators for each row than this are a loop over rows.
OPS_BY_ROW = 3.0
LEAST_PYTHON_MS = 1.0
LEAST_LAUNCH_MS = 0.3
LEAST_COPY_MS = 0.3
LEAST_ITEM_MS = 0.2

# With fewer requests in a batch than this nobody came while the first waited.
ALONE_ROWS = 1.5
# A batch is full from this part of max_batch_size on.
FULL_BATCH = 0.8
# Sizes must differ by this, relative to their mean, to tell what a batch costs from what its rows cost.
SIZE_SPREAD = 0.2
SIZED_BATCHES = 8
# By how much a larger batch and more workers are tried.
LARGER_BATCH = 4
MORE_WORKERS = 2

# Operators of one inference, and what they take when launching them costs more than computing them.
LAUNCH_OPS = 200
TINY_OP_US = 8.0
# A longer pause between two operators is the handler's own Python, not the way from one operator to the next.
LAUNCH_GAP_US = 50.0
# A pass through the profiler makes each operator so much longer; on a slower machine this takes too little off.
PROFILER_US_PER_OP = 0.7
ITEM_CALLS = 10
# A loop that calls .item() comes around at least this often.
ITEM_LOOP_US = 40.0

MATMUL_SHARE = 0.7
# From here on something is what the time goes into.
BOUND_SHARE = 0.5
MATMUL_BOUND_SHARE = 0.4
TOP_SHARE = 0.2
GPU_IDLE_SHARE = 0.3
THREADS_PER_CORE = 1.0
GRAD_SHARE = 0.5

# Products of some length that take up much of a request and are slower than this wait for something else than
# arithmetic or memory; a single core does CORE_GFLOPS or more.
WAITING_SHARE = 0.3
WAITING_US = 500.0
WAITING_GFLOPS = 2.5
WAITING_REUSE_GFLOPS = 5.0
MUCH_REUSE = 8.0
CORE_GFLOPS = 10.0

COLD_TIMES = 5.0
LEAST_COLD_MS = 50.0

# What a fix leaves of the part that it is about. Compiled code still has to be launched, vectorised code to run.
COMPILED_PART = 0.3
GRAPHED_PART = 0.2
VECTORISED_PART = 0.1
BF16_PART = 0.5
SMALLER_BODY_PART = 0.25
# What reading JSON takes at least; objects made of it take their time again, so this part of preprocess is enough.
JSON_SHARE = 0.3
JSON_NS_PER_BYTE = 2.5
# Building the graph of one operator, and taking it down again.
AUTOGRAD_US_PER_OP = 3.0
