//go:build unix

package main

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("loop", main) }

func TestLoop(t *testing.T) {
	p := preforktest.Start(t, "loop")
	p.Expect(fmt.Sprintf(`^try:  kill -HUP %[1]d    kill %[1]d, or Ctrl-C$`, p.PID()))
	p.ExpectN(3, `^worker \d of generation 1: step 1$`)
	p.Signal(syscall.SIGHUP)
	// The lines of different processes arrive in any order.
	p.ExpectN(7, `^manager: received hangup$|^worker \d of generation (1: stops|2: step 1)$`)
	p.Signal(syscall.SIGINT)
	p.ExpectN(4, `^manager: received terminated$|^worker \d of generation 2: stops$`)
	p.Expect(`^manager: all workers have exited$`)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}
