//go:build unix

package main

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"standby": main}) }

// The place of a worker that crashes is taken by the one that has stood by, which has loaded what it needs.
func TestStandbyTakesOver(t *testing.T) {
	p := preforktest.Start(t, "standby", "-listen", "127.0.0.1:0", "-loads", "100ms")
	lines := p.ExpectAll(`^serving on (http://\S+)$`, `^(\d+) stands by$`, `worker ready slot=0`, `worker ready slot=1`)
	url, standby := lines[0][1], lines[1][1]
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := client.Get(url + "/crash"); err == nil {
		resp.Body.Close()
		t.Fatalf("the worker did not crash: %s", resp.Status)
	}
	slot := p.Expect(`^` + standby + ` stood by and takes slot ([01])$`)[1]
	p.ExpectAll(`worker ready slot=`+slot+` .*pid=`+standby, `^(\d+) stands by$`)
	for range 10 {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(text), "has the model loaded") {
			t.Errorf("a worker without its model answers: %s", text)
		}
	}
	p.Signal(syscall.SIGHUP)
	p.ExpectAll(`worker ready slot=0 gen=2`, `worker ready slot=1 gen=2`, `^\d+ stands by$`)
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
}
