//go:build unix

package process_test

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
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("understudy", understudy)
}

// understudy is a program with one worker and one standby. It reports when the
// standby is parked.
func understudy() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, Standby: 1, ErrRespawnInterval: -1, Logger: slog.New(slog.DiscardHandler), Observe: func(ev prefork.Event) {
		if ev, ok := ev.(prefork.StateEvent); ok && ev.Worker.State == prefork.StateStandby {
			testprog.Print("parked")
		}
	}})
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		testprog.Print("start %d", os.Getpid())
		<-w.Context().Done()
		return nil
	})
}

// original is the same program with Parallel::Prefork, which forks.
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

// BenchmarkStandby measures the time from SIGKILL of a worker until the standby
// works, and beside it that of Parallel::Prefork with err_respawn_interval 0.
// The metric that counts is x-perl, the ratio of the medians.
func BenchmarkStandby(b *testing.B) {
	ours, perl := standbyTimes(b, b.Loop)
	b.ReportMetric(float64(perl.Microseconds()), "µs-perl")
	b.ReportMetric(float64(ours.Microseconds()), "µs-standby")
	b.ReportMetric(float64(ours)/float64(perl), "x-perl")
}

// The benchmark gives the figure. Beside other tests and with the race
// detector, only its order of magnitude counts.
func TestStandbyIsFasterThanAFork(t *testing.T) {
	n := 0
	ours, perl := standbyTimes(t, func() bool { n++; return n <= 20 })
	t.Logf("a standby %v, a fork of Parallel::Prefork %v: %.2f times", ours, perl, float64(ours)/float64(perl))
	if ours > 10*perl {
		t.Errorf("a standby is at work after %v, a fork of Parallel::Prefork after %v", ours, perl)
	}
}

// standbyTimes kills a worker of each program in turns, so that other load of
// the machine affects both. It returns the medians.
func standbyTimes(tb testing.TB, more func() bool) (ours, perl time.Duration) {
	// before the skip: otherwise no test starts the program
	cmd := preforktest.New(tb, "understudy").Cmd
	needParallelPrefork(tb)
	cmd.Env = append(cmd.Env, "PREFORKTEST_PROGRAM=understudy")
	standby, fork := startTalker(tb, cmd, term), startTalker(tb, exec.Command("perl", "-e", original), syscall.SIGKILL)
	var standbys, forks []time.Duration
	pids := [2]int{standby.started(true), fork.started(false)}
	standby.isThere = false
	for more() {
		began := time.Now()
		syscall.Kill(pids[0], syscall.SIGKILL)
		pids[0] = standby.started(false)
		standbys = append(standbys, time.Since(began))
		standby.parked()

		began = time.Now()
		syscall.Kill(pids[1], syscall.SIGKILL)
		pids[1] = fork.started(false)
		forks = append(forks, time.Since(began))
	}
	return median(standbys), median(forks)
}

// talker is a program that prints "start" and the pid of each worker, and
// optionally "parked". Both programs are read in the same way.
type talker struct {
	tb      testing.TB
	lines   *bufio.Scanner
	isThere bool // the standby that is parked next
}

// startTalker starts a program that a signal to its process group ends. Perl
// may go to sleep on a SIGTERM that it has just received, so the test sends it
// SIGKILL.
func startTalker(tb testing.TB, cmd *exec.Cmd, stop syscall.Signal) *talker {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, stop)
		if err := cmd.Wait(); err != nil && stop == term {
			tb.Errorf("%s: %v", cmd.Path, err)
		}
	})
	return &talker{tb: tb, lines: bufio.NewScanner(out)}
}

// started waits for the next worker and, with andParked, for a standby after
// it.
func (p *talker) started(andParked bool) (pid int) {
	for pid == 0 || andParked && !p.isThere {
		if n, _ := fmt.Sscanf(p.next(), "start %d", &pid); n == 0 {
			p.isThere = true
		}
	}
	return pid
}

// parked waits for a standby.
func (p *talker) parked() {
	for !p.isThere {
		p.isThere = p.next() == "parked"
	}
	p.isThere = false
}

func (p *talker) next() string {
	if !p.lines.Scan() {
		p.tb.Fatalf("the output has ended: %v", p.lines.Err())
	}
	return p.lines.Text()
}

// needParallelPrefork skips the test if the original is not installed, except
// in CI.
func needParallelPrefork(tb testing.TB) {
	tb.Helper()
	if err := exec.Command("perl", "-MParallel::Prefork", "-e", "1").Run(); err == nil {
		return
	}
	const missing = "Parallel::Prefork is not installed (Debian: libparallel-prefork-perl)"
	if os.Getenv("CI") != "" {
		tb.Fatal(missing)
	}
	preforktest.Skipf(tb, missing)
}
