// A load of Node's callers; generated.py starts it. Stubs are made of protos/, streams go on by the example's own loop,
// and unary calls by the published service config alone.
//
// The first line on stdin is what to do, as JSON, the second the images and their labels; where stdin ends, no new call
// is begun. Each line on stdout is what one caller has seen.
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

import { generate } from './generate.js'

const folder = (path) => fileURLToPath(new URL(path, import.meta.url))
const FILES = ['oip/inference', 'v1/fleet', 'v1/generation', 'v1/job_service'].map((name) => `millrace/${name}.proto`)
const includeDirs = [folder('../../../protos'), folder('../googleapis')]
const definition = loadSync(FILES, { includeDirs, keepCase: true, longs: String, enums: String, defaults: true })
const { millrace, inference } = grpc.loadPackageDefinition(definition)
const credentials = grpc.credentials.createInsecure()
const DEADLINE_MS = 20_000

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)
const stdin = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const read = async () => JSON.parse((await stdin.next()).value)
const { targets, addresses, config, streams, tokens, rate } = await read()
const images = (await read()).map(([image, label]) => ({ image: Buffer.from(image, 'base64'), label }))
const shape = ['1', '1', '8', '8']
let over = false

/** The generation service, whose messages have the bytes that they came as. */
function generation() {
  const { service } = millrace.v1.TextGenerationService
  const { responseDeserialize } = service.Generate
  const deserialize = (bytes) => ({ ...responseDeserialize(bytes), message: bytes.toString('base64') })
  const Generate = { ...service.Generate, responseDeserialize: deserialize }
  return grpc.makeGenericClientConstructor({ Generate }, 'TextGenerationService')
}

async function follow(stubs, number) {
  for (let turn = 0; !over; turn++) {
    const job = { job_id: `node-${number}-${turn}`, resume_window: { seconds: 30 }, after_offset: '0', after_history: '0' }
    const request = { model: 'stub', text: 'go on', stopping: { max_tokens: tokens }, job }
    tell({ kind: 'asked', job: job.job_id })
    try {
      for await (const { message } of generate(stubs, request)) tell({ kind: 'message', job: job.job_id, message })
      tell({ kind: 'ended', job: job.job_id, code: 0, reason: '' })
    } catch (error) {
      tell({ kind: 'ended', job: job.job_id, code: error.code ?? 2, reason: error.message })
    }
  }
}

/** Unary calls on one channel. Each operation throws where it fails, or its answer is wrong. */
class Caller {
  constructor(target, number) {
    const options = { 'grpc.service_config': config, 'grpc.use_local_subchannel_pool': 1 }
    const make = (Service) => new Service(target, credentials, options)
    this.number = number
    this.tensors = make(inference.GRPCInferenceService)
    this.jobs = make(millrace.v1.JobService)
    this.fleet = make(millrace.v1.FleetService)
    this.kinds = [this.infer, this.submit, this.inferNamed, this.list]
  }

  async run() {
    const began = performance.now()
    const running = new Set()
    for (let turn = 0; ; turn++) {
      await sleep(began + (1_000 * turn) / rate - performance.now())
      if (over) break
      const operation = this.note(this.kinds[turn % this.kinds.length], turn).finally(() => running.delete(operation))
      running.add(operation)
    }
    await Promise.all(running)
    for (const client of [this.tensors, this.jobs, this.fleet]) client.close()
  }

  async note(kind, turn) {
    const began = performance.now()
    try {
      await kind.call(this, turn)
      tell({ kind: 'answer', ms: performance.now() - began })
    } catch (error) {
      tell({ kind: 'failure', failure: `${kind.name}: ${error.message}` })
    }
  }

  ask(client, method, request) {
    const deadline = Date.now() + DEADLINE_MS
    return new Promise((resolve, reject) => {
      client[method](request, new grpc.Metadata(), { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)))
    })
  }

  async infer(turn, parameters = {}) {
    const { image, label } = images[turn % images.length]
    const request = {
      model_name: 'digits',
      parameters,
      inputs: [{ name: 'x', datatype: 'FP32', shape }],
      outputs: [{ name: 'label' }],
      raw_input_contents: [image],
    }
    const answer = await this.ask(this.tensors, 'ModelInfer', request)
    if (answer.raw_output_contents[0].readUInt8() !== label) throw new Error('a wrong answer')
  }

  async inferNamed(turn) {
    await this.infer(turn, { millrace_job_id: { string_param: `node-${this.number}-tensors-${turn}` } })
  }

  async submit(turn) {
    const job = { job_id: `node-${this.number}-job-${turn}` }
    const generate = { model: 'stub', text: 'go on', stopping: { max_tokens: 2 } }
    await this.ask(this.jobs, 'SubmitJob', { generate, job })
    const { job_id } = await this.ask(this.jobs, 'GetJob', job)
    if (job_id !== job.job_id) throw new Error('a wrong answer')
  }

  async list() {
    const { models } = await this.ask(this.fleet, 'ListModels', {})
    if (models.map(({ name }) => name).join() !== 'digits,stub') throw new Error('a wrong answer')
  }
}

const Generation = generation()
const stubs = addresses.map((address) => new Generation(address, credentials))
const callers = targets.map((target, number) => new Caller(target, number))
const work = [...callers.map((caller) => caller.run()), ...Array.from({ length: streams }, (_, at) => follow(stubs, at))]
while (!(await stdin.next()).done);
over = true
await Promise.all(work)
stubs.forEach((stub) => stub.close())
