//go:build unix

package main

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/ops/client"
)

// Each verb and synonym with the request that it makes.
func TestRequests(t *testing.T) {
	f := startFake(t)
	for args, want := range map[string]string{
		"reload":                       "POST /v1/reload?timeout=1m0s",
		"hup":                          "POST /v1/reload?timeout=1m0s",
		"reload --how plain":           "POST /v1/reload?how=plain&timeout=1m0s",
		"-p a reload":                  "POST /v1/reload?pool=a&timeout=1m0s",
		"--timeout 5s reload":          "POST /v1/reload?timeout=5s",
		"restart":                      "POST /v1/restart?timeout=1m0s",
		"restart 12":                   "POST /v1/workers/12/replace?timeout=1m0s",
		"upgrade":                      "POST /v1/upgrade?timeout=1m0s",
		"scale 9":                      "POST /v1/scale?timeout=1m0s&workers=9",
		"scale +2":                     "POST /v1/scale?timeout=1m0s&workers=%2B2",
		"scale -3":                     "POST /v1/scale?timeout=1m0s&workers=-3",
		"scale -4 --timeout 2m":        "POST /v1/scale?timeout=2m0s&workers=-4",
		"ttin":                         "POST /v1/scale?timeout=1m0s&workers=%2B1",
		"ttou":                         "POST /v1/scale?timeout=1m0s&workers=-1",
		"pause":                        "POST /v1/pause?timeout=1m0s",
		"resume":                       "POST /v1/resume?timeout=1m0s",
		"cont":                         "POST /v1/resume?timeout=1m0s",
		"signal USR1":                  "POST /v1/signal?signal=USR1&timeout=1m0s",
		"signal WINCH --workers":       "POST /v1/signal?signal=WINCH&timeout=1m0s&to=workers",
		"signal USR2 15":               "POST /v1/workers/15/signal?signal=USR2&timeout=1m0s",
		"alarm":                        "POST /v1/signal?signal=ALRM&timeout=1m0s",
		"interrupt":                    "POST /v1/signal?signal=INT&timeout=1m0s",
		"quit":                         "POST /v1/signal?signal=QUIT&timeout=1m0s",
		"1 --timeout 3s":               "POST /v1/signal?signal=USR1&timeout=3s",
		"2 --timeout 3s":               "POST /v1/signal?signal=USR2&timeout=3s",
		"term":                         "POST /v1/signal?signal=TERM&timeout=1m0s",
		"kill 12":                      "POST /v1/workers/12/kill?timeout=1m0s",
		"stop 12":                      "POST /v1/workers/12/stop?timeout=1m0s",
		"stop":                         "POST /v1/stop?timeout=1m0s",
		"down --timeout 3s":            "POST /v1/stop?timeout=3s",
		"exit --timeout 4s":            "POST /v1/stop?timeout=4s",
		"shutdown --timeout 5s":        "POST /v1/stop?timeout=5s",
		"stop --stay":                  "POST /v1/stop?stay=1&timeout=1m0s",
		"loglevel debug":               "PUT /v1/loglevel?level=debug",
		"ping":                         "GET /healthz",
		"status":                       "GET /v1/status?usage=1",
		"-p a status":                  "GET /v1/status?pool=a&usage=1",
		"--json -p b status":           "GET /v1/status?pool=b&usage=1",
		"events":                       "GET /v1/events?follow=0&since=0",
		"wait ready --timeout 24h":     "GET /v1/wait?for=ready&timeout=",
		"check":                        "GET /v1/wait?for=ready&timeout=",
		"wait reloaded>3":              "GET /v1/wait?for=reloaded%3E3&timeout=",
		"top --once --interval 100ms":  "GET /v1/status?usage=1",
		"monit --once --interval 0.1s": "GET /v1/status?usage=1",
	} {
		f.mu.Lock()
		f.requests = nil
		f.mu.Unlock()
		status, _, stderr := command(append([]string{"-s", f.socket}, strings.Fields(args)...)...)
		f.mu.Lock()
		asked := slices.ContainsFunc(f.requests, func(r string) bool {
			return r == want || strings.HasSuffix(want, "=") && strings.HasPrefix(r, want)
		})
		if status != 0 || !asked {
			t.Errorf("%s: status %d, %q, requests %q, want %s", args, status, stderr, f.requests, want)
		}
		f.mu.Unlock()
	}
}

// A reload prints how far it is to stderr, and its outcome to stdout.
func TestReloadProgress(t *testing.T) {
	f := startFake(t)
	ready := func(slot int) string {
		return line("worker", map[string]any{"slot": slot, "gen": 4, "state": "ready"})
	}
	old := line("worker", map[string]any{"slot": 7, "gen": 3, "state": "ready"})
	f.on("POST /v1/reload", outcome(client.Answer{Command: "reload", Outcome: client.Done, Generation: 4, Seconds: 2.41, Text: "generation 4 is in place, 3 workers"},
		old, line("generation", map[string]int{"gen": 4, "max_workers": 3}), ready(0), old, ready(1), ready(1), ready(2)))
	status, stdout, stderr := command("-s", f.socket, "reload")
	if status != 0 || stdout != "web: generation 4 is in place: 3 workers replaced in 2.4 s\n" || stderr != "web: generation 4: 1 of 3 replaced …\n" {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	if _, stdout, stderr = command("-s", f.socket, "--json", "reload"); !json.Valid([]byte(stdout)) || stderr != "" {
		t.Errorf("as JSON: stdout %q, stderr %q", stdout, stderr)
	}
}

// A command for several pools prints the outcome of each.
func TestSeveralPools(t *testing.T) {
	f := startFake(t)
	f.mu.Lock()
	f.status.Pools = []client.Pool{newPool("web"), newPool("queue")}
	f.mu.Unlock()
	f.on("POST /v1/reload", outcome(client.Answer{Command: "reload", Outcome: client.Failed, Pools: []client.Answer{
		{Pool: "web", Outcome: client.Done, Text: "generation 4 is in place, 8 workers"}, {Pool: "queue", Outcome: client.Failed, Error: "generation 2 failed, keeping generation 1"},
	}}))
	status, stdout, stderr := command("-s", f.socket, "reload")
	if status != 1 || stdout != "web: pool \"web\": generation 4 is in place, 8 workers\n" || stderr != "web: pool \"queue\": reload failed: generation 2 failed, keeping generation 1\n" {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

// Replacing several workers ends at the first that fails; killing them does not.
func TestSeveralWorkers(t *testing.T) {
	f := startFake(t)
	for _, verb := range []string{"replace", "kill"} {
		f.on("POST /v1/workers/13/"+verb, refusal(404, "there is no worker 13"))
	}
	if status, _, stderr := command("-s", f.socket, "restart", "12", "13", "14"); status != 1 || !strings.Contains(stderr, "worker 13") {
		t.Errorf("restart: status %d, %q", status, stderr)
	}
	if f.asked("POST /v1/workers/14/replace?timeout=1m0s") {
		t.Error("restart went on after a failure")
	}
	status, stdout, _ := command("-s", f.socket, "--json", "kill", "12", "13", "14")
	if status != 1 || !f.asked("POST /v1/workers/14/kill?timeout=1m0s") {
		t.Errorf("kill: status %d", status)
	}
	var all struct {
		Answers []struct{ Outcome string }
		Exit    int
	}
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || len(all.Answers) != 3 || all.Answers[1].Outcome != "failed" || all.Exit != 1 {
		t.Errorf("kill: %v, %s", err, stdout)
	}
}

// The names of managers, pools, workers and states are completed live.
func TestCompletion(t *testing.T) {
	f := startFake(t)
	f.mu.Lock()
	f.status.Pools = []client.Pool{newPool("front"), newPool("queue")}
	f.mu.Unlock()
	for args, want := range map[string]string{
		"restart ":     `(?m)^12\tpool "front": slot 0, pid 4711, ready$`,
		"kill 12 ":     `(?m)^15\t`,
		"signal H":     `(?m)^HUP$`,
		"signal HUP ":  `(?m)^12\t`,
		"wait ":        `(?m)^settled$`,
		"loglevel ":    `(?m)^debug$`,
		"-p ":          `(?m)^queue\t7 of 8 ready$`,
		"reload --how": `how`,
		"completion ":  `(?m)^fish$`,
	} {
		fields := strings.Split(args, " ")
		status, stdout, _ := command(append([]string{"__complete", "-s", f.socket}, fields...)...)
		if status != 0 || !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("%q: status %d, %s", args, status, stdout)
		}
		if args == "kill 12 " && regexp.MustCompile(`(?m)^12\t`).MatchString(stdout) {
			t.Errorf("an ID is offered twice: %s", stdout)
		}
	}
	if status, stdout, _ := command("__complete", "-s", ""); status != 0 || !strings.Contains(stdout, "web\tpid ") {
		t.Errorf("names: status %d, %s", status, stdout)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if status, stdout, _ := command("completion", shell); status != 0 || !strings.Contains(stdout, "__complete") {
			t.Errorf("%s: status %d", shell, status)
		}
	}
}

// The manager's answer is shown as it is, with fields that this program does not
// know.
func TestJSONStatus(t *testing.T) {
	f := startFake(t)
	f.on("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"api":1,"name":"web","future":[1],"pools":[{"settled":false}]}` + "\n"))
	})
	if status, stdout, _ := command("-s", f.socket, "--json", "status"); status != 0 || !strings.Contains(stdout, `"future":[1]`) {
		t.Errorf("status %d, %s", status, stdout)
	}
	status, stdout, stderr := command("-s", f.socket, "--json", "status", "--check")
	if status != 1 || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, "not settled") {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
}
