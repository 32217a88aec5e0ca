//go:build unix

package main

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("callback", main) }

func TestCallback(t *testing.T) {
	p := preforktest.Start(t, "callback")
	p.Expect(`^try:  kill -HUP \d+ `)
	const ready = `^worker \d of generation %d has the (configuration of .+)$`
	first := p.ExpectN(2, fmt.Sprintf(ready, 1))
	if first[0][1] != first[1][1] {
		t.Errorf("workers of one generation have %q and %q", first[0][1], first[1][1])
	}
	p.Expect(`worker failed slot=0 gen=1 .*err="regular error`)
	p.Expect(`^manager: worker \d+ \(slot 0, generation 1\) crashed: exit code 1 after `)
	if respawned := p.Expect(fmt.Sprintf(ready, 1)); respawned[1] != first[0][1] {
		t.Errorf("respawned worker has %q; its generation has %q", respawned[1], first[0][1])
	}
	p.Signal(syscall.SIGHUP)
	for _, next := range p.ExpectN(2, fmt.Sprintf(ready, 2)) {
		if next[1] == first[0][1] {
			t.Errorf("after HUP a worker has %q", next[1])
		}
	}
	p.Signal(syscall.SIGTERM)
	p.ExpectN(2, `^manager: worker \d+ \(slot \d, generation 2\) stopped: `)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}
