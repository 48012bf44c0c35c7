// Streams a generation, whichever of the frontends live:
//
//     node generate.js HOST:PORT[,HOST:PORT…] MODEL PROMPT [MAX_TOKENS] [JOB_ID]
//
// The text goes to stdout as it comes, a line about the job to stderr.
import { randomUUID } from 'node:crypto'
import { readFileSync, realpathSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const PROTOS = fileURLToPath(new URL('../../../protos', import.meta.url))
const GOOGLEAPIS = fileURLToPath(new URL('../googleapis', import.meta.url)) // has google/rpc/status.proto
const definition = loadSync(['millrace/v1/generation.proto', 'millrace/v1/job_service.proto'], {
  includeDirs: [PROTOS, GOOGLEAPIS],
  keepCase: true,
  longs: String, // offsets and histories have 64 bits, a JavaScript number 53
  enums: String,
  defaults: true,
})
const { TextGenerationService, JobService } = grpc.loadPackageDefinition(definition).millrace.v1

const { MILLRACE_CLIENT_TLS_CA: CA } = process.env // a file with the authorities of frontends that speak TLS
const credentials = CA ? grpc.credentials.createSsl(readFileSync(CA)) : grpc.credentials.createInsecure()
// Says within seconds that a frontend is frozen, or its machine gone.
const KEEPALIVE = { 'grpc.keepalive_time_ms': 2_000, 'grpc.keepalive_timeout_ms': 2_000 }
const RESUME_WINDOW = { seconds: 30 } // how long the job waits for us between two calls
const PATIENCE = 12 // calls in a row that bring nothing
const PAUSE_MS = { first: 50, longest: 2_000 }

/** The messages of one job, each once and in order, over as many calls as it takes. `request.job` has the place. */
export async function* generate(stubs, request) {
  const { job } = request
  let failures = 0
  for (let turn = 0; ; turn++) {
    const call = stubs[turn % stubs.length].Generate(request)
    try {
      for await (const message of call) {
        if (BigInt(message.offset) !== BigInt(job.after_offset) + 1n) {
          throw new Error(`offset ${message.offset} follows ${job.after_offset}`)
        }
        job.after_offset = message.offset
        job.after_history = message.history
        failures = 0
        yield message
      }
      return
    } catch (error) {
      // Only the call was lost where the status is UNAVAILABLE and the job has not ended: the next frontend goes on.
      const ended = error.metadata?.get('millrace-ended').includes('1')
      if (error.code !== grpc.status.UNAVAILABLE || ended || ++failures > PATIENCE) throw error
    } finally {
      call.cancel()
    }
    await sleep(Math.min(PAUSE_MS.first * 2 ** failures, PAUSE_MS.longest))
  }
}

/** Unary calls need no loop: by the service config gRPC itself makes a lost one again, on a frontend that lives. */
async function describe(addresses, jobId) {
  const config = readFileSync(`${PROTOS}/service_config.json`, 'utf8')
  const service = new JobService(`ipv4:${addresses}`, credentials, { 'grpc.service_config': config })
  const getJob = promisify(service.GetJob).bind(service)
  try {
    return await getJob({ job_id: jobId }, new grpc.Metadata(), { deadline: Date.now() + 10_000 })
  } finally {
    service.close()
  }
}

const USAGE = 'usage: generate.js HOST:PORT[,HOST:PORT…] MODEL PROMPT [MAX_TOKENS] [JOB_ID]'

async function main(addresses, model, text, maxTokens = '256', jobId = randomUUID()) {
  if (text === undefined) throw new Error(USAGE)
  const stubs = addresses.split(',').map((address) => new TextGenerationService(address, credentials, KEEPALIVE))
  const job = { job_id: jobId, resume_window: RESUME_WINDOW, after_offset: '0', after_history: '0' }
  const request = { model, text, stopping: { max_tokens: Number(maxTokens) }, job }
  try {
    for await (const { deltas } of generate(stubs, request)) {
      for (const delta of deltas) process.stdout.write(delta.text)
    }
  } finally {
    stubs.forEach((stub) => stub.close())
  }
  const { state, last_offset: results, attempts } = await describe(addresses, jobId)
  console.error(`${jobId}: ${state}, results: ${results}, attempts: ${attempts}`)
}

if (fileURLToPath(import.meta.url) === realpathSync(process.argv[1])) {
  main(...process.argv.slice(2)).catch((error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
