//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("pools", main) }

// pools is the running example and its state as the test knows it.
type pools struct {
	*preforktest.Program
	t      *testing.T
	url    string
	dir    string // with the jobs
	socket string
	pids   map[string]int // of the ready workers, by pool and slot such as "web 0"
}

func start(t *testing.T, hup string) *pools {
	program := preforktest.New(t, "pools", "-listen", "127.0.0.1:0", "-hup", hup)
	socket := filepath.Join(testprog.SocketDir(t), "s")
	program.Cmd.Env = append(program.Cmd.Env, client.EnvSocket+"="+socket, "NOTIFY_SOCKET=")
	p := &pools{Program: program.Start(), t: t, socket: socket, pids: make(map[string]int)}
	got := p.Expect(`^serving on (http://\S+), jobs are in (\S+)$`)
	p.url, p.dir = got[1], got[2]
	p.awaitReady(4, `pool=(web|queue) slot=(\d) gen=1`)
	if len(p.pids) != 4 {
		t.Fatalf("ready at the start: %v", p.pids)
	}
	return p
}

// awaitReady waits until n workers whose log attributes match the pattern are
// ready.
func (p *pools) awaitReady(n int, pattern string) {
	p.t.Helper()
	for _, got := range p.ExpectN(n, `worker ready `+pattern+` pid=(\d+)`) {
		p.pids[got[1]+" "+got[2]], _ = strconv.Atoi(got[3])
	}
}

// submit submits a job and returns its name.
func (p *pools) submit(duration time.Duration) string {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(p.url, "text/plain", strings.NewReader(duration.String()))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	name, ok := strings.CutPrefix(strings.TrimSpace(string(body)), "web worker ")
	if _, name, _ = strings.Cut(name, " accepted job "); err != nil || !ok || name == "" {
		p.t.Fatalf("POST: %s, %v: %q", resp.Status, err, body)
	}
	return name
}

// checkWork checks that web accepts jobs and queue does each of them once.
func (p *pools) checkWork() {
	p.t.Helper()
	jobs := make(map[string]bool)
	for range 10 {
		jobs[p.submit(0)] = true
	}
	for _, got := range p.ExpectN(10, `^queue worker \d did job (\S+)$`) {
		delete(jobs, got[1])
	}
	if len(jobs) > 0 {
		p.t.Errorf("not done: %v", jobs)
	}
}

// checkReplaced checks that exactly the wanted workers have been replaced, and
// that the manager has no others.
func (p *pools) checkReplaced(before map[string]int, want ...string) {
	p.t.Helper()
	var got []string
	for name, pid := range p.pids {
		if before[name] != pid {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		p.t.Errorf("replaced workers %q, want %q", got, want)
	}
	workers, err := preforktest.Children(p.PID())
	if err != nil {
		p.t.Logf("cannot list processes: %v", err)
		return
	}
	alive := make(map[int]bool)
	for _, w := range workers {
		alive[w.PID] = true
	}
	for name, pid := range p.pids {
		if !alive[pid] {
			p.t.Errorf("%s, pid %d, is not a worker of the manager", name, pid)
		}
	}
	if len(alive) != len(p.pids) {
		p.t.Errorf("the manager has %d workers, want %d", len(alive), len(p.pids))
	}
}

// stop stops the program and checks its output.
func (p *pools) stop(crashed int) {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		p.t.Errorf("manager: %v", state)
	}
	p.WaitGone()
	p.checkLines(crashed)
	if _, err := os.Stat(p.dir); !os.IsNotExist(err) {
		p.t.Errorf("the directory of jobs was not removed: %v", err)
	}
}

// checkLines checks that no job was done twice, and that the output has no
// failure except the crashes.
func (p *pools) checkLines(crashed int) {
	p.t.Helper()
	failure := regexp.MustCompile(`killed|worker failed|spawn failed|ERROR`)
	crashes, done := 0, make(map[string]bool)
	for _, line := range p.Lines() {
		if strings.Contains(line, "reason=crashed") {
			crashes++
		}
		if _, job, ok := strings.Cut(line, " did job "); ok {
			if done[job] {
				p.t.Errorf("job %s was done twice", job)
			}
			done[job] = true
		}
		if failure.MatchString(line) {
			p.t.Error(line)
		}
	}
	if crashes != crashed {
		p.t.Errorf("%d workers crashed, want %d", crashes, crashed)
	}
}

// If only one signal table has HUP, it replaces the workers of that pool and
// does not affect the other.
func TestHangupOfOnePool(t *testing.T) {
	for hup, other := range map[string]string{"web": "queue", "queue": "web"} {
		t.Run(hup, func(t *testing.T) {
			p := start(t, hup)
			for gen := 2; gen <= 3; gen++ {
				before := maps.Clone(p.pids)
				p.Signal(syscall.SIGHUP)
				p.awaitReady(2, fmt.Sprintf(`pool=(%s) slot=(\d) gen=%d`, hup, gen))
				p.checkWork()
				p.checkReplaced(before, hup+" 0", hup+" 1")
			}
			for _, line := range p.Lines() {
				if strings.Contains(line, "pool="+other) &&
					(strings.Contains(line, "signal") || strings.Contains(line, "gen=2")) {
					t.Errorf("after a HUP for %s only: %s", hup, line)
				}
			}
			p.stop(0)
		})
	}
}

// If both signal tables have HUP, it replaces all workers. A worker that is
// killed is replaced in its own pool.
func TestBothPools(t *testing.T) {
	p := start(t, "web,queue")
	p.checkWork()

	before := maps.Clone(p.pids)
	p.Signal(syscall.SIGHUP)
	p.awaitReady(4, `pool=(web|queue) slot=(\d) gen=2`)
	p.checkWork()
	p.checkReplaced(before, "web 0", "web 1", "queue 0", "queue 1")

	before = maps.Clone(p.pids)
	syscall.Kill(p.pids["web 1"], syscall.SIGKILL)
	syscall.Kill(p.pids["queue 1"], syscall.SIGKILL)
	p.awaitReady(2, `pool=(web|queue) slot=(1) gen=2`)
	p.checkWork()
	p.checkReplaced(before, "web 1", "queue 1")

	// One control socket shows both pools, and reloads one of them.
	c, err := client.Dial(p.socket)
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Status(context.Background(), client.StatusOptions{})
	if err != nil || len(st.Pools) != 2 || st.Pools[0].Name != "web" || st.Pools[1].Name != "queue" {
		t.Errorf("%+v, %v", st, err)
	}
	before = maps.Clone(p.pids)
	if a, err := c.Do(context.Background(), client.Command{Name: "reload", Pool: "web"}); err != nil || a.Outcome != client.Done {
		t.Errorf("%+v, %v", a, err)
	}
	p.awaitReady(2, `pool=(web) slot=(\d) gen=3`)
	p.checkReplaced(before, "web 0", "web 1")

	// If a worker is killed during a job, the next worker of its slot does the
	// job.
	before = maps.Clone(p.pids)
	job := p.submit(time.Second)
	slot := p.Expect(`^queue worker (\d) begins job ` + job + `$`)[1]
	syscall.Kill(p.pids["queue "+slot], syscall.SIGKILL)
	p.awaitReady(1, `pool=(queue) slot=(`+slot+`) gen=2`)
	p.Expect(`^queue worker ` + slot + ` did job ` + job + `$`)
	p.checkReplaced(before, "queue "+slot)

	// The pool finishes a running job after TERM.
	job = p.submit(300 * time.Millisecond)
	p.Expect(`^queue worker \d begins job ` + job + `$`)
	p.stop(3)
	p.Expect(`^queue worker \d did job ` + job + `$`)
}
