package broker

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

const serverEnv = "BROKERTEST_SERVER" // "store port limit": be a nats-server

func TestMain(m *testing.M) {
	if args := os.Getenv(serverEnv); args != "" {
		serve(args)
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "5"); err != nil { // they mostly wait
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).Shutdown"))
}
