//go:build unix

package prefork_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// understudy is a program of one worker and one standby, which says when that is parked.
func understudy() {
	pm := must(prefork.Config{MaxWorkers: 1, Standby: 1, ErrRespawnInterval: -1, Logger: slog.New(slog.DiscardHandler), Observe: func(ev prefork.Event) {
		if ev, ok := ev.(prefork.StateEvent); ok && ev.Worker.State == prefork.StateStandby {
			say("parked")
		}
	}})
	untilTerm(pm, func(w *prefork.Worker) error {
		say("start %d", os.Getpid())
		<-w.Context().Done()
		return nil
	})
}

// original is the same with Parallel::Prefork, which forks anew.
const original = `
use Parallel::Prefork;
$| = 1;
my $pm = Parallel::Prefork->new({ max_workers => 1, err_respawn_interval => 0, trap_signals => { TERM => 'TERM' } });
until ($pm->signal_received eq 'TERM') {
	$pm->start(sub {
		syswrite STDOUT, "start $$\n";
		$SIG{TERM} = sub { exit 0 };
		sleep 3600 while 1;
	});
}
$pm->wait_all_children;
`

// BenchmarkStandby measures the time from SIGKILL of a worker to a standby's being at work, and beside it that of
// Parallel::Prefork with err_respawn_interval 0. What counts is x-perl, the ratio of the medians.
func BenchmarkStandby(b *testing.B) {
	ours, perl := standbyTimes(b, b.Loop)
	b.ReportMetric(float64(perl.Microseconds()), "µs-perl")
	b.ReportMetric(float64(ours.Microseconds()), "µs-standby")
	b.ReportMetric(float64(ours)/float64(perl), "x-perl")
}

// The figure itself belongs to the benchmark; here, beside other tests and with the race detector, only its order.
func TestStandbyIsFasterThanAFork(t *testing.T) {
	n := 0
	ours, perl := standbyTimes(t, func() bool { n++; return n <= 20 })
	t.Logf("a standby %v, a fork of Parallel::Prefork %v: %.2f times", ours, perl, float64(ours)/float64(perl))
	if ours > 10*perl {
		t.Errorf("a standby is at work after %v, a fork of Parallel::Prefork after %v", ours, perl)
	}
}

// standbyTimes kills a worker of each by turns, so that what the machine does besides falls on both. It returns the medians.
func standbyTimes(tb testing.TB, more func() bool) (ours, perl time.Duration) {
	needParallelPrefork(tb)
	manager := preforktest.Start(tb, "understudy")
	lines := manager.ExpectAll(`^start (\d+)$`, `^parked$`)
	var pid int
	fmt.Sscan(lines[0][1], &pid)

	cmd := exec.Command("perl", "-e", original)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(term)
		if err := cmd.Wait(); err != nil {
			tb.Errorf("perl: %v", err)
		}
	}()
	forks, fork := bufio.NewScanner(out), 0
	next := func() {
		if !forks.Scan() {
			tb.Fatalf("perl: the output has ended: %v", forks.Err())
		}
		fmt.Sscanf(forks.Text(), "start %d", &fork)
	}
	next()
	var standbys, others []time.Duration
	for more() {
		began := time.Now()
		syscall.Kill(pid, syscall.SIGKILL)
		for started, parked := false, false; !started || !parked; {
			switch line := manager.NextLine(); {
			case line == "parked":
				parked = true
			case !started:
				started = true
				standbys = append(standbys, time.Since(began))
				fmt.Sscanf(line, "start %d", &pid)
			}
		}

		began = time.Now()
		syscall.Kill(fork, syscall.SIGKILL)
		next()
		others = append(others, time.Since(began))
	}
	manager.Signal(term)
	manager.Wait()
	return median(standbys), median(others)
}

// needParallelPrefork skips where the original is not installed, but not in CI.
func needParallelPrefork(tb testing.TB) {
	tb.Helper()
	if err := exec.Command("perl", "-MParallel::Prefork", "-e", "1").Run(); err == nil {
		return
	}
	const missing = "Parallel::Prefork is not installed (Debian: libparallel-prefork-perl)"
	if os.Getenv("CI") != "" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
}
