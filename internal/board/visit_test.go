//go:build ci && unix

package board

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestBrowser runs browser/board.test.mjs, with node and chromium, against the stage.
func TestBrowser(t *testing.T) {
	if _, err := os.Stat(filepath.Join("browser", "node_modules", "playwright-core")); err != nil {
		t.Fatal("what the browser tests need is not there; run: npm ci --prefix " +
			"internal/board/browser")
	}
	*stageListen, *stageInterval = "127.0.0.1:0", 500*time.Millisecond
	out, err := onStage(t.Context(), 20*time.Minute, false,
		nodeTests("board.test.mjs")...)
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

var (
	shots = flag.String("shots", "",
		"make the documentation's screenshots in this directory, in place of the tests")
	only = flag.String("only", ".",
		"run only the browser tests whose names match this regular expression")
	measure = flag.Duration("measure", 0,
		"measure what the page and an open page cost for so long each, in place of the tests")
)

func init() {
	alone := runStage
	runStage = func() bool {
		script := []string{"measure.mjs", measure.String()}
		switch {
		case *shots != "":
			dir, err := filepath.Abs(*shots)
			if err != nil {
				panic(err)
			}
			script = []string{"shots.mjs", dir}
			*stageChurn, *stagePast, *stageInterval = 0, 5*time.Hour, time.Second
		case *measure > 0:
			*stageAgents, *stageChurn, *stageInterval = 10_000, 20, time.Second
		default:
			return alone()
		}
		*stageListen = "127.0.0.1:0"
		out, err := onStage(context.Background(), time.Hour, *measure > 0, script...)
		os.Stdout.Write(out)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return true
	}
}

// nodeTests are node's arguments for the tests of a file. What failed is at the end of its output.
func nodeTests(file string) []string {
	return []string{"--test", "--test-reporter=spec", "--test-name-pattern=" + *only, file}
}

var errCurtain = errors.New("the end")

// onStage runs node with the addresses of a stage in its environment, and returns what it wrote. If
// apart, the board that node is told of is in a process of its own.
func onStage(ctx context.Context, most time.Duration, apart bool, args ...string) ([]byte, error) {
	return onStageBehind(ctx, most, apart, nil, args...)
}

// onStageBehind is onStage, and tells node also what behind returns, which it is told the addresses
// for; nil: nothing.
func onStageBehind(ctx context.Context, most time.Duration, apart bool,
	behind func(ctx context.Context, board, control string) (map[string]string, error),
	args ...string) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	ended := stage(ctx, func(board, control, nats string) error {
		if apart {
			var stop func()
			if board, control, stop, err = boardApart(ctx, nats); err != nil {
				return err
			}
			defer stop()
		}
		node := exec.CommandContext(ctx, "node", args...)
		node.Dir = "browser"
		node.Env = append(os.Environ(), "BOARD="+board, "CONTROL="+control)
		if behind != nil {
			found, err := behind(ctx, board, control)
			if err != nil {
				return err
			}
			for name, url := range found {
				node.Env = append(node.Env, name+"="+url)
			}
		}
		node.WaitDelay = 10 * time.Second
		if out, err = node.CombinedOutput(); err != nil {
			return err
		}
		return errCurtain
	})
	if !errors.Is(ended, errCurtain) {
		return out, ended
	}
	return out, nil
}

// boardApart starts a process with a board on the stream of a NATS server, until stop is called.
func boardApart(ctx context.Context, nats string) (board, control string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-stage", "127.0.0.1:0", "-stage.nats", nats,
		"-stage.agents", "-1")
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		return "", "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	var at struct{ Board, Control string }
	if err := json.NewDecoder(said).Decode(&at); err != nil {
		stop()
		return "", "", nil, err
	}
	return at.Board, at.Control, stop, nil
}
