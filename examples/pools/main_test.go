//go:build unix

package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"pools": main}) }

// pools is the example as it runs, and what the test knows of it.
type pools struct {
	*preforktest.Program
	t    *testing.T
	url  string
	dir  string         // of jobs
	pids map[string]int // of the workers that are ready, by pool and slot: "web 0"
}

func start(t *testing.T, hup string) *pools {
	p := &pools{Program: preforktest.Start(t, "pools", "-listen", "127.0.0.1:0", "-hup", hup), t: t, pids: make(map[string]int)}
	got := p.Expect(`^serving on (http://\S+), jobs lie in (\S+)$`)
	p.url, p.dir = got[1], got[2]
	p.ready(4, `pool=(web|queue) slot=(\d) gen=1`)
	if len(p.pids) != 4 {
		t.Fatalf("at the start these are ready: %v", p.pids)
	}
	return p
}

// ready waits for n workers that get ready.
func (p *pools) ready(n int, which string) {
	p.t.Helper()
	for _, got := range p.ExpectN(n, `worker ready `+which+` pid=(\d+)`) {
		p.pids[got[1]+" "+got[2]], _ = strconv.Atoi(got[3])
	}
}

// job hands in a job and returns its name.
func (p *pools) job(takes time.Duration) string {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(p.url, "text/plain", strings.NewReader(takes.String()))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	name, ok := strings.CutPrefix(strings.TrimSpace(string(body)), "web worker ")
	if _, name, _ = strings.Cut(name, " took job "); err != nil || !ok || name == "" {
		p.t.Fatalf("POST: %s, %v: %q", resp.Status, err, body)
	}
	return name
}

// work shows that both pools are alive: web takes jobs, queue does each of them once.
func (p *pools) work() {
	p.t.Helper()
	jobs := make(map[string]bool)
	for range 10 {
		jobs[p.job(0)] = true
	}
	for _, got := range p.ExpectN(10, `^queue worker \d did job (\S+)$`) {
		delete(jobs, got[1])
	}
	if len(jobs) > 0 {
		p.t.Errorf("not done: %v", jobs)
	}
}

// changed compares who is at work now with who was, given who should have been replaced.
func (p *pools) changed(before map[string]int, want ...string) {
	p.t.Helper()
	got := make(map[string]bool)
	for who, pid := range p.pids {
		if before[who] != pid {
			got[who] = true
		}
	}
	for _, who := range want {
		if !got[who] {
			p.t.Errorf("%s was not replaced", who)
		}
		delete(got, who)
	}
	if len(got) > 0 {
		p.t.Errorf("replaced besides: %v", got)
	}
	workers, err := preforktest.Children(p.PID())
	if err != nil {
		p.t.Logf("processes cannot be listed here: %v", err)
		return
	}
	alive := make(map[int]bool)
	for _, w := range workers {
		alive[w.PID] = true
	}
	for who, pid := range p.pids {
		if !alive[pid] {
			p.t.Errorf("%s, pid %d, is not among the manager's workers", who, pid)
		}
	}
	if len(alive) != len(p.pids) {
		p.t.Errorf("the manager has %d workers, want %d", len(alive), len(p.pids))
	}
}

// stop ends the program and looks at all that it said.
func (p *pools) stop(crashed int) {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		p.t.Errorf("it ended with %v", state)
	}
	p.WaitGone()
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
		for _, word := range []string{"killed", "worker failed", "spawn failed", "ERROR"} {
			if strings.Contains(line, word) {
				p.t.Error(line)
			}
		}
	}
	if crashes != crashed {
		p.t.Errorf("%d workers crashed, want %d", crashes, crashed)
	}
	if _, err := os.Stat(p.dir); !os.IsNotExist(err) {
		p.t.Errorf("the directory of jobs is left: %v", err)
	}
}

// A HUP that one table names replaces the workers of that pool, and the other pool hears nothing of it.
func TestHangupOfOnePool(t *testing.T) {
	for hup, other := range map[string]string{"web": "queue", "queue": "web"} {
		t.Run(hup, func(t *testing.T) {
			p := start(t, hup)
			for gen := 2; gen <= 3; gen++ {
				before := maps.Clone(p.pids)
				p.Signal(syscall.SIGHUP)
				p.ready(2, fmt.Sprintf(`pool=(%s) slot=(\d) gen=%d`, hup, gen))
				p.work()
				p.changed(before, hup+" 0", hup+" 1")
			}
			for _, line := range p.Lines() {
				if strings.Contains(line, "pool="+other) && (strings.Contains(line, "signal") || strings.Contains(line, "gen=2")) {
					t.Errorf("after a HUP for %s alone: %s", hup, line)
				}
			}
			p.stop(0)
		})
	}
}

// A HUP that both tables name replaces all workers; one that is killed is replaced in its own pool.
func TestBothPools(t *testing.T) {
	p := start(t, "web,queue")
	p.work()

	before := maps.Clone(p.pids)
	p.Signal(syscall.SIGHUP)
	p.ready(4, `pool=(web|queue) slot=(\d) gen=2`)
	p.work()
	p.changed(before, "web 0", "web 1", "queue 0", "queue 1")

	before = maps.Clone(p.pids)
	syscall.Kill(p.pids["web 1"], syscall.SIGKILL)
	syscall.Kill(p.pids["queue 1"], syscall.SIGKILL)
	p.ready(2, `pool=(web|queue) slot=(1) gen=2`)
	p.work()
	p.changed(before, "web 1", "queue 1")

	// A job whose worker is killed at it is done by the next worker of the slot.
	before = maps.Clone(p.pids)
	job := p.job(time.Second)
	slot := p.Expect(`^queue worker (\d) begins job ` + job + `$`)[1]
	syscall.Kill(p.pids["queue "+slot], syscall.SIGKILL)
	p.ready(1, `pool=(queue) slot=(`+slot+`) gen=2`)
	p.Expect(`^queue worker ` + slot + ` did job ` + job + `$`)
	p.changed(before, "queue "+slot)

	// A job that is under way at TERM is done.
	job = p.job(300 * time.Millisecond)
	p.Expect(`^queue worker \d begins job ` + job + `$`)
	p.stop(3)
	p.Expect(`^queue worker \d did job ` + job + `$`)
}
