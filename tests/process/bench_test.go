//go:build unix

package process_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

// BenchmarkRespawn measures the time from SIGKILL of a worker until its
// replacement is in main, without backoff, and beside it the floor: the same
// binary killed, awaited and started by hand. The metric that counts is
// x-floor, the ratio of the medians.
func BenchmarkRespawn(b *testing.B) {
	floor, respawn := respawnTimes(b, b.Loop)
	b.ReportMetric(float64(floor.Microseconds()), "µs-floor")
	b.ReportMetric(float64(respawn.Microseconds()), "µs-respawn")
	b.ReportMetric(float64(respawn)/float64(floor), "x-floor")
}

// The benchmark gives the figure. Beside other tests and with the race
// detector, only its order of magnitude counts.
func TestRespawnIsNearTheFloor(t *testing.T) {
	n := 0
	floor, respawn := respawnTimes(t, func() bool { n++; return n <= 20 })
	t.Logf("respawn %v, by hand %v: %.2f times", respawn, floor, float64(respawn)/float64(floor))
	if respawn > 5*floor {
		t.Errorf("a respawn takes %v, by hand it takes %v", respawn, floor)
	}
}

// respawnTimes replaces a worker of a manager and a process by hand in turns,
// so that other load of the machine affects both. It returns the medians.
func respawnTimes(tb testing.TB, more func() bool) (floor, respawn time.Duration) {
	manager := preforktest.Start(tb, "respawn")
	pid := 0
	next := func() {
		fmt.Sscan(manager.Expect(`^main (\d+)$`)[1], &pid)
	}
	next()
	manager.Expect(`^start`)
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	byHand := newByHand(tb, w, bufio.NewReader(r))
	defer byHand.kill()

	var floors, respawns []time.Duration
	for more() {
		began := time.Now()
		byHand.kill()
		byHand.start()
		floors = append(floors, time.Since(began))

		began = time.Now()
		syscall.Kill(pid, syscall.SIGKILL)
		next()
		respawns = append(respawns, time.Since(began))
		manager.Expect(`^start`)
	}
	manager.Signal(term)
	manager.Wait()
	return median(floors), median(respawns)
}

// byHand is a process of this binary without a manager.
type byHand struct {
	tb    testing.TB
	cmd   *exec.Cmd
	out   *os.File
	lines *bufio.Reader
	p     *os.Process
}

func newByHand(tb testing.TB, out *os.File, lines *bufio.Reader) *byHand {
	h := &byHand{tb: tb, cmd: preforktest.New(tb, "hello").Cmd, out: out, lines: lines}
	h.start()
	return h
}

func (h *byHand) start() {
	var err error
	h.p, err = os.StartProcess(h.cmd.Path, h.cmd.Args, &os.ProcAttr{
		Env:   append(h.cmd.Env, "PREFORKTEST_PROGRAM=hello", "GORACE=atexit_sleep_ms=0"),
		Files: []*os.File{os.Stdin, h.out, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		h.tb.Fatal(err)
	}
	if _, err := h.lines.ReadString('\n'); err != nil {
		h.tb.Fatal(err)
	}
}

func (h *byHand) kill() {
	h.p.Kill()
	h.p.Wait()
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
