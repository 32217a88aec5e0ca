//go:build unix

package prefork_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

// BenchmarkRespawn measures the time from SIGKILL of a worker to its replacement being in main, with pacing off, and
// beside it the floor: the same binary killed, waited for and started by hand. The two take turns, so that what the
// machine does besides falls on both. What counts is x-floor, the ratio of the medians.
func BenchmarkRespawn(b *testing.B) {
	manager := preforktest.Start(b, "respawn")
	pid := 0
	next := func() {
		fmt.Sscan(manager.Expect(`^main (\d+)$`)[1], &pid)
	}
	next()
	manager.Expect(`^start`)

	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	lines := bufio.NewReader(r)
	hand := func() *os.Process {
		exe, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		p, err := os.StartProcess(exe, []string{exe}, &os.ProcAttr{
			Env:   append(os.Environ(), "PREFORKTEST_PROGRAM=hello", "GORACE=atexit_sleep_ms=0"),
			Files: []*os.File{os.Stdin, w, os.Stderr},
			Sys:   &syscall.SysProcAttr{Setpgid: true},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			b.Fatal(err)
		}
		return p
	}
	byHand := hand()

	var floor, respawn []time.Duration
	for b.Loop() {
		began := time.Now()
		byHand.Kill()
		byHand.Wait()
		byHand = hand()
		floor = append(floor, time.Since(began))

		began = time.Now()
		syscall.Kill(pid, syscall.SIGKILL)
		next()
		respawn = append(respawn, time.Since(began))
		manager.Expect(`^start`)
	}
	byHand.Kill()
	byHand.Wait()
	b.ReportMetric(float64(median(floor).Microseconds()), "µs-floor")
	b.ReportMetric(float64(median(respawn).Microseconds()), "µs-respawn")
	b.ReportMetric(float64(median(respawn))/float64(median(floor)), "x-floor")
	manager.Signal(term)
	manager.Wait()
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
