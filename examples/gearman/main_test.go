//go:build unix

package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("gearman", main) }

var long = flag.Bool("long", false, "submit 20,000 jobs instead of 2,000")

// size returns how many jobs a test submits, and how much work each is. A job
// takes a sixth of a millisecond with -long, and otherwise a tenth of that.
func size() (jobs, rounds int) {
	if *long {
		return 20_000, 20_000
	}
	return 2_000, 2_000
}

// freeAddress returns an address on which no process listens.
func freeAddress(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// gearmand starts a job server and returns its address.
func gearmand(t *testing.T) string {
	path := preforktest.NeedCommand(t, "gearmand", "Debian: apt-get install gearman-job-server")
	address := freeAddress(t) // gearmand does not report a port that the kernel chooses
	_, port, _ := net.SplitHostPort(address)
	p := preforktest.Command(t, exec.Command(path, "--listen=127.0.0.1", "--port="+port,
		"--log-file=stderr", "--verbose=INFO", "--pid-file="+filepath.Join(t.TempDir(), "pid")))
	p.Start().Expect(`Listening on 127.0.0.1:` + port)
	return address
}

// pool starts workers with their own configuration.
func pool(t *testing.T, server string, workers, rounds int) (p *preforktest.Program, config string) {
	config = filepath.Join(t.TempDir(), "config.json")
	configure(t, config, "one", rounds)
	p = preforktest.Start(t, "gearman", "worker", "--server", server,
		"--workers", fmt.Sprint(workers), "--config", config)
	const first = `^%d workers on gearmand at %s; the manager's pid is %d$`
	p.Expect(fmt.Sprintf(first, workers, server, p.PID()))
	p.ExpectN(workers, `worker ready`)
	return p, config
}

func configure(t *testing.T, file, name string, rounds int) {
	t.Helper()
	text := fmt.Appendf(nil, `{"Name": %q, "Rounds": %d}`, name, rounds)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func startSubmit(t *testing.T, server string, n int) *preforktest.Program {
	return preforktest.Start(t, "gearman", "submit", "--server", server, "-n", fmt.Sprint(n))
}

// waitAnswered waits until submit exits. It returns the speed, and the number
// of jobs of each configuration.
func waitAnswered(t *testing.T, p *preforktest.Program) (speed string, by map[string]int) {
	t.Helper()
	for speed == "" { // a line for each 5 % of the jobs, and a last one with the speed
		speed = p.Expect(`^(?:\d+ of \d+|all) answered(?: in .*: (\d+ jobs per second))?$`)[1]
	}
	if state := p.Wait(); !state.Success() {
		t.Errorf("submit: %v", state)
	}
	p.WaitGone()
	by = make(map[string]int)
	for _, line := range p.Lines() {
		if n, name, ok := strings.Cut(line, " by configuration "); ok {
			by[name], _ = strconv.Atoi(n)
		} else if strings.Contains(line, " by no configuration") {
			t.Error(line)
		}
	}
	return speed, by
}

// stop stops a pool and returns how many jobs all its workers have reported.
func stop(t *testing.T, p *preforktest.Program) (done int) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
	p.WaitGone()
	for _, line := range p.Lines() {
		if _, n, ok := strings.Cut(line, " exits after "); ok {
			k, _ := strconv.Atoi(strings.TrimSuffix(n, " jobs"))
			done += k
		}
		if strings.Contains(line, "worker failed") {
			t.Error(line)
		}
	}
	return done
}

// killOne kills a random worker of the pool. It opens a handle first, and then
// checks that the pid still belongs to a worker, so it kills no other process.
func killOne(t *testing.T, p *preforktest.Program) (killed bool) {
	t.Helper()
	workers, err := preforktest.Children(p.PID())
	if err != nil {
		preforktest.Skipf(t, "%v", err)
	}
	if len(workers) == 0 {
		return false
	}
	pid := workers[rand.IntN(len(workers))].PID
	handle, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Release()
	workers, _ = preforktest.Children(p.PID())
	for _, w := range workers {
		if w.PID == pid {
			return handle.Kill() == nil
		}
	}
	return false
}

// All jobs are answered while random workers are killed and HUP replaces
// others.
func TestKillsAndReloads(t *testing.T) {
	server := gearmand(t)
	jobs, rounds := size()
	p, config := pool(t, server, 4, rounds)
	submit := startSubmit(t, server, jobs)
	kills := 0
	for tick := range 19 { // each is 5 % of the jobs
		submit.Expect(` answered$`)
		switch tick {
		case 5:
			configure(t, config, "two", rounds)
			p.Signal(syscall.SIGHUP)
		case 12:
			configure(t, config, "three", rounds)
			p.Signal(syscall.SIGHUP)
		default:
			if killOne(t, p) {
				kills++
			}
		}
	}
	speed, by := waitAnswered(t, submit)
	done := stop(t, p)
	t.Logf("%d workers killed: %s, by configuration %v", kills, speed, by)
	if by["one"]+by["two"]+by["three"] != jobs {
		t.Errorf("%d jobs, answered by configuration %v", jobs, by)
	}
	// Without -long, a fast machine might do the remaining jobs before a worker
	// has the last configuration.
	if *long && (len(by) != 3 || done == 0) {
		t.Errorf("answered by configuration %v; %d jobs by workers that were not killed", by, done)
	}
	if kills == 0 {
		t.Error("no worker was killed")
	}
}

// Reloads alone do each job once: a worker exits only after gearmand has the
// answer of the job that it has begun.
func TestReloads(t *testing.T) {
	server := gearmand(t)
	jobs, rounds := size()
	p, _ := pool(t, server, 4, rounds)
	submit := startSubmit(t, server, jobs)
	for range 19 {
		submit.Expect(` answered$`)
		p.Signal(syscall.SIGHUP)
	}
	speed, _ := waitAnswered(t, submit)
	if done := stop(t, p); done != jobs {
		t.Errorf("workers did %d jobs, want %d", done, jobs)
	}
	t.Logf("19 reloads: %s", speed)
}

// The test logs the speed of one worker and of several.
func TestSpeed(t *testing.T) {
	server := gearmand(t)
	jobs, rounds := size()
	for _, workers := range []int{1, 2, 4} {
		p, _ := pool(t, server, workers, rounds)
		speed, by := waitAnswered(t, startSubmit(t, server, jobs))
		if by["one"] != jobs {
			t.Errorf("%d jobs, answered by configuration %v", jobs, by)
		}
		stop(t, p)
		t.Logf("workers=%d: %s", workers, speed)
	}
}

// A stopping worker finishes its job.
func TestFinishes(t *testing.T) {
	server := gearmand(t)
	p, _ := pool(t, server, 1, 5_000_000)
	submit := startSubmit(t, server, 1)
	waitForJob(t, server)
	if done := stop(t, p); done != 1 {
		t.Errorf("workers did %d jobs, want 1", done)
	}
	waitAnswered(t, submit)
}

// If a worker is killed, its replacement does the job, and the client does not
// submit it again.
func TestKilledInJob(t *testing.T) {
	server := gearmand(t)
	p, config := pool(t, server, 1, 2_000_000_000)
	submit := startSubmit(t, server, 1)
	waitForJob(t, server)
	configure(t, config, "two", 1)
	p.Signal(syscall.SIGHUP)
	p.Expect(`worker stopping`)
	if !killOne(t, p) {
		t.Error("the worker exited before its job was done")
	}
	if _, by := waitAnswered(t, submit); by["two"] != 1 {
		t.Errorf("answered by configuration %v", by)
	}
	stop(t, p)
}

// waitForJob waits until gearmand reports that a worker has a job.
func waitForJob(t *testing.T, server string) {
	nc, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	lines := bufio.NewScanner(nc)
	preforktest.WaitFor(t, "a running job", func() (running bool) {
		fmt.Fprintln(nc, "status")
		for lines.Scan() && lines.Text() != "." {
			// name, jobs, running jobs, workers
			running = running || strings.HasPrefix(lines.Text(), function+"\t1\t1\t")
		}
		return running
	})
}

// A bad job is answered as failed, and the worker continues.
func TestBadJob(t *testing.T) {
	server := gearmand(t)
	p, _ := pool(t, server, 1, 1)
	nc, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	const submitJob, jobCreated, workFail = 7, 8, 14
	job := function + "\x00\x00seven"
	message := binary.BigEndian.AppendUint32([]byte("\x00REQ"), submitJob)
	message = binary.BigEndian.AppendUint32(message, uint32(len(job)))
	if _, err := nc.Write(append(message, job...)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint32{jobCreated, workFail} {
		header := make([]byte, 12)
		if _, err := io.ReadFull(nc, header); err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint32(header[4:]); got != want {
			t.Fatalf("packet type %d from gearmand, want %d", got, want)
		}
		if _, err := io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(header[8:]))); err != nil {
			t.Fatal(err)
		}
	}
	waitAnswered(t, startSubmit(t, server, 10))
	if done := stop(t, p); done != 11 {
		t.Errorf("workers did %d jobs, want 11", done)
	}
}

// Without gearmand, workers fail and are respawned after a delay, and the pool
// can be stopped. Submit reports the error and exits.
func TestNoServer(t *testing.T) {
	server := freeAddress(t)
	p, _ := pool(t, server, 1, 1)
	p.Expect(`worker failed.*connection refused`)
	p.Expect(`respawn delayed`)
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
	submit := startSubmit(t, server, 1)
	submit.Expect(`connection refused`)
	if state := submit.Wait(); state.ExitCode() != 1 {
		t.Errorf("submit: %v", state)
	}
}
