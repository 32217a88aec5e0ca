//go:build unix

package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/control"
)

func TestServicesUnreachable(t *testing.T) {
	t.Setenv("SVWAIT", "0")
	dir := testprog.SocketDir(t)
	t.Setenv(client.EnvSocket, dir+"/none.prefork.sock")
	if code, out, errs := command("sv", "stop", "a", "b"); code != 2 || out != "" || !strings.Contains(errs, "no manager is running") {
		t.Errorf("no manager: exit %d, %q, %q", code, out, errs)
	}
	f := startFake(t)
	f.on("GET /v1/services", refusal(404, "this program keeps no services"))
	t.Setenv(client.EnvSocket, f.socket)
	if code, out, errs := command("sv", "status"); code != 1 || out != "" || !strings.Contains(errs, "keeps no services") {
		t.Errorf("no services: exit %d, %q, %q", code, out, errs)
	}
	f.on("GET /v1/services", reply(200, client.Services{Now: time.Now(), Services: []client.Service{svUp, svDown}}))
	f.on("POST /v1/services/command", refusal(403, "only root may"))
	if code, out, errs := command("sv", "stop", "web"); code != 1 || out != "fail: web: only root may\n" || errs != "" {
		t.Errorf("not permitted: exit %d, %q, %q", code, out, errs)
	}
	db := svUp
	db.Name = "db"
	f.on("GET /v1/services", reply(200, client.Services{Now: time.Now(), Services: []client.Service{svUp, db}}))
	one := client.ServiceOutcome{Name: "web", Outcome: client.Done, Service: &svDown}
	f.on("POST /v1/services/command", events(string(encode(t, one)))) // and the end
	if code, out, errs := command("sv", "stop", "web", "db"); code != 1 || strings.Count(out, "\n") != 2 || !strings.Contains(out, "ok: down: web: ") || !strings.Contains(out, "fail: db: the connection ended") || errs != "" {
		t.Errorf("the manager ends: exit %d, %q, %q", code, out, errs)
	}
	f.on("POST /v1/services/command", events(`{"name":"other"}`)) // and the end
	if code, out, _ := command("sv", "stop", "web", "web"); code != 1 || !strings.Contains(out, "fail: ") {
		t.Errorf("a strange answer: exit %d, %q", code, out)
	}
}

// Without -s, sv is for the manager that keeps services, also if one of them is a
// manager. Those that do not answer count.
func TestKeeper(t *testing.T) {
	startServices(t, svUp)
	watch := client.Found{Socket: os.Getenv(client.EnvSocket)}
	f := startFake(t)
	f.on("GET /v1/services", refusal(404, "this program keeps no services"))
	service := client.Found{Socket: f.socket}
	f = startFake(t)
	f.on("GET /v1/services", reply(200, client.Services{}))
	other := client.Found{Socket: f.socket}
	foreign := client.Found{Socket: f.socket, Err: client.ErrForeign}
	f = startFake(t)
	f.on("GET /v1/services", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	silent := client.Found{Socket: f.socket}
	gone := client.Found{Socket: f.socket + ".gone"}
	full := client.Found{Socket: gone.Socket, Err: fmt.Errorf("full: %w", client.ErrNoAnswer)}
	for name, c := range map[string]struct {
		found []client.Found
		want  string
	}{
		"a service that is a manager": {[]client.Found{service, watch, service}, watch.Socket},
		"others that do not count":    {[]client.Found{watch, foreign, gone}, watch.Socket},
		"two":                         {[]client.Found{watch, service, other}, ""},
		"one that does not answer":    {[]client.Found{watch, silent}, ""},
		"one with a full queue":       {[]client.Found{watch, full}, ""},
		"none":                        {[]client.Found{service, service}, ""},
	} {
		if got := keeper(c.found); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestServicesAsJSON(t *testing.T) {
	f := startServices(t, svUp)
	f.react = changes{'d': svTerm}
	for _, row := range []struct {
		args string
		code int
		out  string
	}{
		{"--json status", 0, `{"manager":"watch","services":[{"name":"web","outcome":"","service":{"name":"web",`},
		{"--json -w 0 stop web", 1, `"outcome":"timeout"`},
		{"--json hup none", 1, `"error":"fail: none: there is no such service"`},
	} {
		code, out, errs := command(append([]string{"sv"}, strings.Fields(row.args)...)...)
		if code != row.code || !strings.Contains(out, row.out) || strings.Count(out, "\n") != 1 || errs != "" {
			t.Errorf("%s: exit %d, %q, %q, want %d, %q", row.args, code, out, errs, row.code, row.out)
		}
	}
}

func TestCompleteServices(t *testing.T) {
	web := svUp
	web.Log = &client.Service{Name: "web/log", State: client.StateRun}
	startServices(t, web)
	for args, want := range map[string]string{
		"sv ":            "force-stop",
		"sv up ":         "web\trun",
		"sv up web ":     "web/log\trun",
		"sv up web web/": "web/log",
	} {
		words := strings.Split(args, " ")
		_, out, _ := command(append([]string{"__complete"}, words...)...)
		if !strings.Contains(out, want) {
			t.Errorf("%q: %q, want %q", args, out, want)
		}
	}
}

func TestLinkNamedSV(t *testing.T) {
	for want, argv := range map[string][]string{
		"sv up web": {"/usr/local/bin/sv", "up", "web"}, "sv": {"sv"}, "status": {"prefork", "status"}, "": {"/usr/bin/prefork"},
	} {
		if got := strings.Join(arguments(argv), " "); got != want {
			t.Errorf("%q: %q, want %q", argv, got, want)
		}
	}
}

// Wrong usage names the missing argument.
func TestServiceUsage(t *testing.T) {
	for args, want := range map[string]string{
		"sv":         "sv: usage: ",
		"sv web":     "sv: there is no verb web: usage: ",
		"sv restart": "sv: restart needs the name of a service: usage: ",
	} {
		if status, _, errs := command(strings.Fields(args)...); status != 100 || !strings.HasPrefix(errs, want) {
			t.Errorf("%s: %d, %q, want %q", args, status, errs, want)
		}
	}
}

// Without a pool, tail names the flag that chooses one. If there are no lines, it says
// why.
func TestServiceTail(t *testing.T) {
	web, db := svUp, changed(svDown, func(s *client.Service) { s.Name = "db" })
	web.Path, web.Log = "/srv/web", &client.Service{Name: "web/log"}
	f := &fakeServices{all: map[string]*client.Service{"web": &web, "db": &db}}
	tail := func(string, int, int) []client.Line { return nil }
	socket := filepath.Join(testprog.SocketDir(t), "w"+client.Suffix)
	s, err := control.Open(control.Config{Path: socket, Name: "w", Services: f, Tail: tail, Stop: func() {}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for _, name := range []string{"web", "db"} {
		pm, err := prefork.New(prefork.Config{Name: name, Logger: slog.New(slog.DiscardHandler), Untrapped: true})
		if err != nil {
			t.Fatal(err)
		}
		remove := s.Add(pm)
		t.Cleanup(func() { remove(); pm.Close() })
	}
	for args, want := range map[string]string{
		"tail":             `w: there are several pools, name one with -p: "db", "web"`,
		"tail -p web":      "w: no lines: the logger of web has them, see /srv/web/log",
		"tail -p db":       "w: no lines yet",
		"tail -p web -n 0": "",
		"stop -p web":      `w: pool "web" is not stopped alone: prefork sv stops a service, and stop without -p the program`,
	} {
		_, out, errs := command(append([]string{"-s", socket}, strings.Fields(args)...)...)
		if out != "" || strings.TrimSuffix(errs, "\n") != want {
			t.Errorf("%s: %q, %q, want %q", args, out, errs, want)
		}
	}
}
