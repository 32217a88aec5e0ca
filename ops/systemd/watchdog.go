package systemd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/prefork-go/prefork"
)

// watchdogPeriod returns the time in which systemd expects a message; 0 for none.
// The pid names the process that systemd started: this one, its reaper, or a
// predecessor of a successor. For other processes the variables mean nothing.
func watchdogPeriod(usec, pid string, successor bool) (time.Duration, error) {
	if usec == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(1<<63-1)/int64(time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC is %q, and not a number of microseconds: the watchdog is not fed", usec)
	}
	if pid != "" {
		p, err := strconv.Atoi(pid)
		switch {
		case err != nil || p <= 0:
			return 0, fmt.Errorf("WATCHDOG_PID is %q, and not a pid: the watchdog is not fed", pid)
		case p != os.Getpid() && p != prefork.ReaperPID() && !successor:
			return 0, nil
		}
	}
	return time.Duration(n) * time.Microsecond, nil
}

// feedWatchdog notifies systemd while the loops of all pools turn.
func (n *notifier) feedWatchdog(period time.Duration) {
	select {
	case <-prefork.TookOver():
	case <-n.closing:
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n.wg.Go(func() { // a Ping may wait as long as no blocking call is under way
		<-n.closing
		cancel()
	})
	each := max(period/3, time.Millisecond)
	ticker := time.NewTicker(each)
	defer ticker.Stop()
	for {
		if n.pingAll(ctx, each) {
			n.send("WATCHDOG=1")
		}
		select {
		case <-ticker.C:
		case <-n.closing:
			return
		}
	}
}

// pingAll reports whether the loop of each pool turns, except of those that have
// ended. Without any there is nothing that turns.
func (n *notifier) pingAll(ctx context.Context, timeout time.Duration) (turning bool) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, p := range n.pools {
		n.mu.Lock()
		ended := p.ended
		n.mu.Unlock()
		if ended {
			continue
		}
		if p.pm.Ping(ctx) != nil {
			return false
		}
		turning = true
	}
	return turning
}
