// Streams a generation, whichever of the frontends live:
//
//     generate HOST:PORT[,HOST:PORT…] MODEL PROMPT [MAX_TOKENS] [JOB_ID]
//
// The text goes to stdout as it comes, a line about the job to stderr.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "millrace/v1/generation.grpc.pb.h"
#include "millrace/v1/job_service.grpc.pb.h"

namespace millrace::v1 {
namespace {

using Stub = std::unique_ptr<TextGenerationService::Stub>;
using Show = std::function<void(const GenerateResponse&)>;
using namespace std::chrono_literals;

constexpr auto kServiceConfig = "protos/service_config.json";
constexpr int kResumeWindowSeconds = 30;  // how long the job waits for us between two calls
constexpr int kPatience = 12;             // calls in a row that bring nothing
constexpr auto kFirstPause = 50ms, kLongestPause = 2000ms;

Stub Connect(const std::string& address) {
  grpc::ChannelArguments options;
  // Says within seconds that a frontend is frozen, or its machine gone.
  options.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
  options.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 2000);
  options.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  options.SetInt(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), options);
  return TextGenerationService::NewStub(channel);
}

// The messages of one job, each once and in order, over as many calls as it takes; request.job has the place.
grpc::Status Follow(const std::vector<Stub>& stubs, GenerateRequest& request, const Show& show) {
  JobOptions& job = *request.mutable_job();
  int failures = 0;
  for (std::size_t turn = 0;; ++turn) {
    grpc::ClientContext context;
    auto reader = stubs[turn % stubs.size()]->Generate(&context, request);
    for (GenerateResponse message; reader->Read(&message);) {
      if (message.offset() != job.after_offset() + 1) {
        context.TryCancel();
        return {grpc::StatusCode::DATA_LOSS, "offset " + std::to_string(message.offset()) + " follows " +
                                                 std::to_string(job.after_offset())};
      }
      job.set_after_offset(message.offset());
      job.set_after_history(message.history());
      failures = 0;
      show(message);
    }
    const grpc::Status status = reader->Finish();
    const bool ended = context.GetServerTrailingMetadata().count("millrace-ended") > 0;
    // Only the call was lost where the status is UNAVAILABLE and the job has not ended: the next frontend goes on.
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE || ended || ++failures > kPatience) return status;
    std::this_thread::sleep_for(std::min<std::chrono::milliseconds>(kFirstPause * (1 << failures), kLongestPause));
  }
}

// Unary calls need no loop: by the service config gRPC itself makes a lost one again, on a frontend that lives.
grpc::Status Describe(const std::string& addresses, const std::string& job_id, Job& job) {
  std::stringstream config;
  config << std::ifstream(kServiceConfig).rdbuf();
  grpc::ChannelArguments options;
  options.SetServiceConfigJSON(config.str());
  auto channel = grpc::CreateCustomChannel("ipv4:" + addresses, grpc::InsecureChannelCredentials(), options);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + 10s);
  GetJobRequest request;
  request.set_job_id(job_id);
  return JobService::NewStub(channel)->GetJob(&context, request, &job);
}

int Run(const std::vector<std::string>& arguments) {
  if (arguments.size() < 3) {
    std::cerr << "usage: generate HOST:PORT[,HOST:PORT…] MODEL PROMPT [MAX_TOKENS] [JOB_ID]\n";
    return 2;
  }
  std::vector<Stub> stubs;
  std::stringstream addresses(arguments[0]);
  for (std::string address; std::getline(addresses, address, ',');) stubs.push_back(Connect(address));
  const auto job_id = arguments.size() > 4 ? arguments[4] : "cpp-" + std::to_string(std::random_device{}());

  GenerateRequest request;
  request.set_model(arguments[1]);
  request.set_text(arguments[2]);
  request.mutable_stopping()->set_max_tokens(arguments.size() > 3 ? std::stoul(arguments[3]) : 256);
  request.mutable_job()->set_job_id(job_id);
  request.mutable_job()->mutable_resume_window()->set_seconds(kResumeWindowSeconds);
  grpc::Status status = Follow(stubs, request, [](const GenerateResponse& message) {
    for (const auto& delta : message.deltas()) std::cout << delta.text() << std::flush;
  });

  Job job;
  if (status.ok()) status = Describe(arguments[0], job_id, job);
  if (!status.ok()) {
    std::cerr << status.error_code() << ": " << status.error_message() << '\n';
    return 1;
  }
  std::cerr << job_id << ": " << Job::State_Name(job.state()) << ", results: " << job.last_offset()
            << ", attempts: " << job.attempts() << '\n';
  return 0;
}

}  // namespace
}  // namespace millrace::v1

int main(int count, char** words) { return millrace::v1::Run({words + 1, words + count}); }
