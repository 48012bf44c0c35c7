"""The load generator: `millrace load`.

A `Scenario` says what is asked for and when; generator processes make the calls; `Result` is what came of it. Latencies
of an open loop count from when a request was due, whether or not the generator could send it then, so that a service
that stalls is charged for all who would have called in the meantime (Tene, "How NOT to Measure Latency", 2013).

Metrics as the field defines them, for one request: **e2e**, from due to the end; **TTFT**, time to first token, from
due to the first message that has tokens; **TPOT**, time per output token, (end - first token) / (output tokens - 1), of
requests with two tokens or more; **ITL**, inter-token latency, the gap between two messages, divided among the tokens
of the later one. **Goodput** counts the requests that met every limit of the SLO.
"""
