// Command generate streams a generation, whichever of the frontends live:
//
//	generate HOST:PORT[,HOST:PORT…] MODEL PROMPT [MAX_TOKENS] [JOB_ID]
//
// The text goes to stdout as it comes, a line about the job to stderr.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // what healthCheckConfig needs
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	millrace "millrace/v1"
)

const (
	serviceConfig = "protos/service_config.json"
	resumeWindow  = 30 * time.Second // how long the job waits for us between two calls
	patience      = 12               // calls in a row that bring nothing
	firstPause    = 50 * time.Millisecond
	longestPause  = 2 * time.Second
)

type (
	stub = millrace.TextGenerationServiceClient
	show = func(*millrace.GenerateResponse)
)

// follow shows the messages of one job, each once and in order, over as many calls as it takes; request.Job has the
// place.
func follow(stubs []stub, request *millrace.GenerateRequest, show show) error {
	failures, job := 0, request.Job
	for turn := 0; ; turn++ {
		before := job.AfterOffset
		trailer, err := call(stubs[turn%len(stubs)], request, show)
		if err == nil {
			return nil
		}
		if job.AfterOffset > before {
			failures = 0
		}
		// Only the call was lost where the status is UNAVAILABLE and the job has not ended: the next frontend
		// goes on.
		failures++
		if status.Code(err) != codes.Unavailable || len(trailer["millrace-ended"]) > 0 || failures > patience {
			return err
		}
		pause := firstPause << failures
		if pause > longestPause {
			pause = longestPause
		}
		time.Sleep(pause)
	}
}

// call makes one call, which goes on from request.Job's place and moves it. Its error is nil where the job has
// succeeded.
func call(stub stub, request *millrace.GenerateRequest, show show) (metadata.MD, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := stub.Generate(ctx, request)
	if err != nil {
		return nil, err
	}
	for job := request.Job; ; {
		message, err := stream.Recv()
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return stream.Trailer(), err
		}
		if message.Offset != job.AfterOffset+1 {
			return nil, fmt.Errorf("offset %d follows %d", message.Offset, job.AfterOffset)
		}
		job.AfterOffset, job.AfterHistory = message.Offset, message.History
		show(message)
	}
}

// describe asks how a job stands. Unary calls need no loop: by the service config gRPC itself makes a lost one again,
// on a frontend that lives. grpc-go before 1.40 does so only where GRPC_GO_RETRY=on is set.
func describe(addresses []string, jobID string) (*millrace.Job, error) {
	config, err := os.ReadFile(serviceConfig)
	if err != nil {
		return nil, err
	}
	frontends := manual.NewBuilderWithScheme("frontends")
	var state resolver.State
	for _, address := range addresses {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	frontends.InitialState(state)
	connection, err := grpc.Dial("frontends:///", grpc.WithInsecure(), grpc.WithResolvers(frontends),
		grpc.WithDefaultServiceConfig(string(config)))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return millrace.NewJobServiceClient(connection).GetJob(ctx, &millrace.GetJobRequest{JobId: jobID})
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("usage: generate HOST:PORT[,HOST:PORT…] MODEL PROMPT [MAX_TOKENS] [JOB_ID]")
	}
	addresses, tokens := strings.Split(os.Args[1], ","), 256
	jobID := fmt.Sprintf("go-%d-%d", os.Getpid(), time.Now().UnixNano())
	if len(os.Args) > 4 {
		var err error
		if tokens, err = strconv.Atoi(os.Args[4]); err != nil {
			log.Fatal(err)
		}
	}
	if len(os.Args) > 5 {
		jobID = os.Args[5]
	}
	var stubs []stub
	for _, address := range addresses {
		// The keepalive says that a frontend is frozen, or its machine gone.
		alive := grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second})
		connection, err := grpc.Dial(address, grpc.WithInsecure(), alive)
		if err != nil {
			log.Fatal(err)
		}
		defer connection.Close()
		stubs = append(stubs, millrace.NewTextGenerationServiceClient(connection))
	}
	maxTokens := uint32(tokens)
	request := &millrace.GenerateRequest{
		Model:    os.Args[2],
		Prompt:   &millrace.GenerateRequest_Text{Text: os.Args[3]},
		Stopping: &millrace.Stopping{MaxTokens: &maxTokens},
		Job:      &millrace.JobOptions{JobId: jobID, ResumeWindow: durationpb.New(resumeWindow)},
	}
	err := follow(stubs, request, func(message *millrace.GenerateResponse) {
		for _, delta := range message.Deltas {
			fmt.Print(delta.Text)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	job, err := describe(addresses, jobID)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("%s: %s, results: %d, attempts: %d", jobID, job.State, job.LastOffset, job.Attempts)
}
