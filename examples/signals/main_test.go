//go:build unix

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("signals", main) }

func TestSignals(t *testing.T) {
	p := preforktest.Start(t, "signals")
	for _, sig := range []string{"-USR1 ", "-TTIN ", "-TTOU ", "-HUP ", ""} {
		p.Expect(fmt.Sprintf(`kill %s%d `, sig, p.PID()))
	}
	p.ExpectN(3, `worker ready`)

	p.Signal(syscall.SIGTTIN)
	p.Expect(`worker ready slot=3 gen=2`)
	p.Signal(syscall.SIGUSR1)
	p.Expect(fmt.Sprintf(`^manager %d: generation 2, 4 of 4 workers$`, p.PID()))
	p.ExpectN(4, `^  worker \d+ \(slot \d, generation \d\) ready$`)

	p.Signal(syscall.SIGTTOU)
	p.Expect(`worker gone slot=3 gen=2 .*reason=stopped`)
	p.Signal(syscall.SIGUSR1)
	p.Expect(`: generation 4, 3 of 3 workers$`)

	p.Signal(syscall.SIGHUP)
	p.Expect(`signal received signal=SIGHUP forward=SIGTERM interval=500ms`)
	stopped := 0 // in the order of the slots
	for _, got := range p.ExpectN(6, `worker (stopping slot=(\d) gen=1|ready slot=\d gen=6)`) {
		if got[2] == "" {
			continue
		}
		if got[2] != fmt.Sprint(stopped) {
			t.Errorf("stopped as number %d: slot %s", stopped, got[2])
		}
		stopped++
	}
	p.Signal(syscall.SIGUSR1)
	p.Expect(`: generation 6, 3 of 3 workers$`)

	for range 3 {
		p.Signal(syscall.SIGTTOU)
		p.Expect(`max workers changed`)
	}
	p.Signal(syscall.SIGTTOU) // the number stays zero
	p.Expect(`generation begins gen=11 workers=0`)

	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, "crashed") || strings.Contains(line, "killed") {
			t.Error(line)
		}
	}
}
