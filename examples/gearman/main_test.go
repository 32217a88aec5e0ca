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

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"gearman": main}) }

var long = flag.Bool("long", false, "20,000 jobs, not 2,000")

// size is how many jobs a test submits, and how much work each is: a sixth of a millisecond, or a tenth of that.
func size() (jobs, rounds int) {
	if *long {
		return 20_000, 20_000
	}
	return 2_000, 2_000
}

// freeAddress is one that nobody listens on.
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
	path, err := exec.LookPath("gearmand")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/gearmand") // not in everybody's PATH
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("gearmand is missing, and CI must have it: install gearman-job-server")
		}
		preforktest.Skipf(t, "gearmand is missing; to run this test, install gearman-job-server")
	}
	address := freeAddress(t) // gearmand cannot choose a port and say which
	_, port, _ := net.SplitHostPort(address)
	p := preforktest.Command(t, exec.Command(path, "--listen=127.0.0.1", "--port="+port, "--log-file=stderr", "--verbose=INFO",
		"--pid-file="+filepath.Join(t.TempDir(), "pid")))
	p.Start().Expect(`Listening on 127.0.0.1:` + port)
	return address
}

// pool starts workers with a configuration of their own.
func pool(t *testing.T, server string, workers, rounds int) (p *preforktest.Program, config string) {
	config = filepath.Join(t.TempDir(), "config.json")
	configure(t, config, "one", rounds)
	p = preforktest.Start(t, "gearman", "worker", "--server", server, "--workers", fmt.Sprint(workers), "--config", config)
	p.Expect(fmt.Sprintf(`^%d workers on gearmand at %s; the manager's pid is %d$`, workers, server, p.PID()))
	p.ExpectN(workers, `worker ready`)
	return p, config
}

func configure(t *testing.T, file, name string, rounds int) {
	t.Helper()
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"Name": %q, "Rounds": %d}`, name, rounds), 0o600); err != nil {
		t.Fatal(err)
	}
}

func submitJobs(t *testing.T, server string, n int) *preforktest.Program {
	return preforktest.Start(t, "gearman", "submit", "--server", server, "-n", fmt.Sprint(n))
}

// answered waits for the end of a submit, and returns how fast the jobs were done and how many by which configuration.
func answered(t *testing.T, p *preforktest.Program) (speed string, by map[string]int) {
	t.Helper()
	for speed == "" { // a line for each twentieth, then the last
		speed = p.Expect(`^(?:\d+ of \d+|all) answered(?: in .*: (\d+ jobs per second))?$`)[1]
	}
	if state := p.Wait(); !state.Success() {
		t.Errorf("submit ended with %v", state)
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

// stop ends a pool and returns how many jobs its workers say that they did, over its whole life.
func stop(t *testing.T, p *preforktest.Program) (done int) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
	p.WaitGone()
	for _, line := range p.Lines() {
		if _, n, ok := strings.Cut(line, " leaves after "); ok {
			k, _ := strconv.Atoi(strings.TrimSuffix(n, " jobs"))
			done += k
		}
		if strings.Contains(line, "worker failed") {
			t.Error(line)
		}
	}
	return done
}

// killOne kills a worker of the pool that is picked at random, and nothing else: what is signalled is a handle that was
// opened before the pid was seen to be a worker's.
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

// Workers are killed at random and replaced by HUP, and every job is answered.
func TestKillsAndReloads(t *testing.T) {
	server := gearmand(t)
	jobs, rounds := size()
	p, config := pool(t, server, 4, rounds)
	submit := submitJobs(t, server, jobs)
	kills := 0
	for tick := range 19 { // each is a twentieth of the jobs
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
	speed, by := answered(t, submit)
	done := stop(t, p)
	t.Logf("%d workers killed: %s, by configuration %v", kills, speed, by)
	if by["one"]+by["two"]+by["three"] != jobs {
		t.Errorf("%d jobs, answered by configuration %v", jobs, by)
	}
	// A tenth of the jobs can be done before the last configuration has a worker, on a machine that is fast.
	if *long && (len(by) != 3 || done == 0) {
		t.Errorf("answered by configuration %v; workers that were not killed did %d jobs", by, done)
	}
	if kills == 0 {
		t.Error("no worker was killed")
	}
}

// In reloads alone each job is done once: no worker leaves with a job that it has begun, nor before gearmand has the
// answer.
func TestReloads(t *testing.T) {
	server := gearmand(t)
	jobs, rounds := size()
	p, _ := pool(t, server, 4, rounds)
	submit := submitJobs(t, server, jobs)
	for range 19 {
		submit.Expect(` answered$`)
		p.Signal(syscall.SIGHUP)
	}
	speed, _ := answered(t, submit)
	if done := stop(t, p); done != jobs {
		t.Errorf("%d jobs were done %d times", jobs, done)
	}
	t.Logf("19 reloads: %s", speed)
}

// Several workers beside one process.
func TestSpeed(t *testing.T) {
	server := gearmand(t)
	jobs, rounds := size()
	for _, workers := range []int{1, 2, 4} {
		p, _ := pool(t, server, workers, rounds)
		speed, by := answered(t, submitJobs(t, server, jobs))
		if by["one"] != jobs {
			t.Errorf("%d jobs, answered by configuration %v", jobs, by)
		}
		stop(t, p)
		t.Logf("workers=%d: %s", workers, speed)
	}
}

// A worker that is told to stop finishes its job.
func TestFinishes(t *testing.T) {
	server := gearmand(t)
	p, _ := pool(t, server, 1, 5_000_000)
	submit := submitJobs(t, server, 1)
	waitForJob(t, server)
	if done := stop(t, p); done != 1 {
		t.Errorf("it did %d jobs", done)
	}
	answered(t, submit)
}

// The job of a worker that is killed is done by its successor, without the client's doing.
func TestKilledInJob(t *testing.T) {
	server := gearmand(t)
	p, config := pool(t, server, 1, 2_000_000_000)
	submit := submitJobs(t, server, 1)
	waitForJob(t, server)
	configure(t, config, "two", 1)
	p.Signal(syscall.SIGHUP)
	p.Expect(`worker stopping`)
	if !killOne(t, p) {
		t.Error("the worker has not waited for its job")
	}
	if _, by := answered(t, submit); by["two"] != 1 {
		t.Errorf("answered by configuration %v", by)
	}
	stop(t, p)
}

// waitForJob waits until gearmand says that a worker has a job.
func waitForJob(t *testing.T, server string) {
	nc, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	lines := bufio.NewScanner(nc)
	preforktest.WaitFor(t, "a job under way", func() (running bool) {
		fmt.Fprintln(nc, "status")
		for lines.Scan() && lines.Text() != "." {
			// name, jobs, jobs under way, workers
			running = running || strings.HasPrefix(lines.Text(), function+"\t1\t1\t")
		}
		return running
	})
}

// A job that cannot be done is answered as failed, and the worker goes on.
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
			t.Fatalf("gearmand says %d, want %d", got, want)
		}
		if _, err := io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(header[8:]))); err != nil {
			t.Fatal(err)
		}
	}
	answered(t, submitJobs(t, server, 10))
	if done := stop(t, p); done != 11 {
		t.Errorf("its workers did %d jobs, want the bad one and 10", done)
	}
}

// Without gearmand the workers fail, are started again after a pause, and can be stopped; submit says so and ends.
func TestNoServer(t *testing.T) {
	server := freeAddress(t)
	p, _ := pool(t, server, 1, 1)
	p.Expect(`worker failed.*connection refused`)
	p.Expect(`respawn delayed`)
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
	submit := submitJobs(t, server, 1)
	submit.Expect(`connection refused`)
	if state := submit.Wait(); state.ExitCode() != 1 {
		t.Errorf("submit ended with %v", state)
	}
}
