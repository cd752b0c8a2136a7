//go:build ci && unix

package examples

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// jsRouting needs node, and npm ci in routing-js before.
var jsRouting = engine{func(t testing.TB) (string, []string) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs(filepath.Join("routing-js", "routing.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	return node, []string{script}
}}

func TestRoutingJS(t *testing.T)                { testRouting(t, jsRouting) }
func TestRoutingJSCallsUnreadable(t *testing.T) { testRoutingCallsUnreadable(t, jsRouting) }
func TestChaosJS(t *testing.T)                  { testChaos(t, jsRouting) }

func TestSignInJS(t *testing.T) {
	t.Parallel()
	testSignIn(t, programs{"routing-js": func(t testing.TB) (string, []string) {
		path, args := jsRouting.program(t)
		return path, append(args, "--listen", "127.0.0.1:0")
	}})
}
