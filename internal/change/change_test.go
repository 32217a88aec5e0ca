package change

import (
	"context"
	"errors"
	"testing"
	"time"
)

var (
	noon   = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	errBad = errors.New("worker crashed")
)

// answer returns the answer of a ticket; open means that it has none.
func answer(t *Ticket) (n int, open bool, err error) {
	select {
	case <-t.done:
		n, err = t.Wait(context.Background())
		return n, false, err
	default:
		return 0, true, nil
	}
}

func wantOpen(t *testing.T, when string, ticket *Ticket) {
	t.Helper()
	if n, open, err := answer(ticket); !open {
		t.Errorf("%s: answered with %d, %v", when, n, err)
	}
}

func wantAnswer(t *testing.T, when string, ticket *Ticket, want int, wantErr error) {
	t.Helper()
	if n, open, err := answer(ticket); open || n != want || err != wantErr {
		t.Errorf("%s: %d, %v, open %t; want %d, %v", when, n, err, open, want, wantErr)
	}
}

func reload(t *Tracker, gen int, how any) *Ticket {
	ticket, _ := t.Ask(Reload, how)
	t.BeginReload(Change{Kind: Reload, Generation: gen, Began: noon}, ticket)
	return ticket
}

// newTracker returns a Tracker, and the tickets whose turn has come later.
func newTracker() (*Tracker, *[]*Ticket) {
	var due []*Ticket
	return &Tracker{Due: func(t *Ticket) { due = append(due, t) }}, &due
}

// Equal commands are one while they wait.
func TestAsk(t *testing.T) {
	tr, _ := newTracker()
	a, due := tr.Ask(Reload, "rolling")
	b, again := tr.Ask(Reload, "rolling")
	c, other := tr.Ask(Reload, "plain")
	d, kind := tr.Ask(Upgrade, "rolling")
	if !due || again || !other || !kind || a != b || a == c || c == d {
		t.Errorf("%v %t, %v %t, %v %t, %v %t", a, due, b, again, c, other, d, kind)
	}
	if tr.Waiting(a.ID) != a || tr.Waiting(c.ID) != c || tr.Waiting(99) != nil || tr.Waiting(0) != nil {
		t.Error("waiting tickets are not found")
	}
	tr.BeginReload(Change{Generation: 2}, a)
	if tr.Waiting(a.ID) != nil {
		t.Error("a ticket of the reload under way waits")
	}
	tr.Settled(noon, 2)
	wantAnswer(t, "settled", a, 2, nil)
	if b, due := tr.Ask(Reload, "rolling"); b == a || !due {
		t.Error("a later reload is the one that has ended")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Wait(ctx); err != context.Canceled {
		t.Error(err)
	}
	wantOpen(t, "after a caller has left", c)
}

// The same command waits while a change is under way that may have read what was
// changed since, and all that wait are one.
func TestAskDuringChange(t *testing.T) {
	for name, tt := range map[string]struct {
		kind Kind
		then func(*Tracker)
		due  int // how many are due then; -1 if none waits any more
	}{
		"reload settles":                   {Reload, func(tr *Tracker) { tr.Settled(noon, 2) }, 1},
		"an older generation settles":      {Reload, func(tr *Tracker) { tr.Settled(noon, 1) }, 0},
		"reload fails":                     {Reload, func(tr *Tracker) { tr.Failed(noon, 2, 2, errBad) }, 1},
		"an older generation fails":        {Reload, func(tr *Tracker) { tr.Failed(noon, 1, 2, errBad) }, 1},
		"a later generation fails":         {Reload, func(tr *Tracker) { tr.Failed(noon, 3, 3, errBad) }, 1},
		"one fails before it begins":       {Reload, func(tr *Tracker) { tr.Failed(noon, 1, 1, errBad) }, 0},
		"reload is canceled":               {Reload, func(tr *Tracker) { tr.CancelReload(noon, errBad) }, 1},
		"worker lost":                      {Reload, func(tr *Tracker) { tr.WorkerLost(2); tr.WorkerLost(2); tr.Settled(noon, 2) }, 1},
		"worker of an older generation":    {Reload, func(tr *Tracker) { tr.WorkerLost(1) }, 0},
		"worker of a later generation":     {Reload, func(tr *Tracker) { tr.WorkerLost(3) }, 1},
		"another reload is asked for":      {Reload, func(tr *Tracker) { tr.Ask(Reload, 2) }, 0},
		"another reload begins":            {Reload, func(tr *Tracker) { reload(tr, 3, 2) }, 0},
		"another reload begins and fails":  {Reload, func(tr *Tracker) { reload(tr, 3, 2); tr.CancelReload(noon, errBad) }, 0},
		"another reload begins and ends":   {Reload, func(tr *Tracker) { reload(tr, 3, 2); tr.Settled(noon, 3) }, 1},
		"another reload loses a worker":    {Reload, func(tr *Tracker) { reload(tr, 3, 2); tr.WorkerLost(3) }, 1},
		"another reload, superseded loses": {Reload, func(tr *Tracker) { reload(tr, 3, 2); tr.WorkerLost(2) }, 0},
		"an upgrade ends":                  {Reload, func(tr *Tracker) { tr.BeginUpgrade(Change{}, &Ticket{}); tr.EndUpgrade(noon, 1, nil) }, 0},
		"a signal":                         {Reload, func(tr *Tracker) { reload(tr, 3, 1); tr.WorkerLost(3) }, -1},
		"upgrade ends":                     {Upgrade, func(tr *Tracker) { tr.EndUpgrade(noon, 1, nil) }, 1},
		"upgrade fails":                    {Upgrade, func(tr *Tracker) { tr.EndUpgrade(noon, 0, errBad) }, 1},
		"a reload settles":                 {Upgrade, func(tr *Tracker) { reload(tr, 2, 1); tr.Settled(noon, 2) }, 0},
		"a shutdown":                       {Reload, func(tr *Tracker) { tr.Refuse(noon, errBad) }, -1},
	} {
		t.Run(name, func(t *testing.T) {
			tr, due := newTracker()
			first, _ := tr.Ask(tt.kind, 1)
			if tt.kind == Upgrade {
				tr.BeginUpgrade(Change{}, first)
			} else {
				tr.BeginReload(Change{Generation: 2}, first)
			}
			a, now := tr.Ask(tt.kind, 1)
			b, again := tr.Ask(tt.kind, 1)
			if a == first || a != b || now || again || tr.Waiting(a.ID) != a {
				t.Errorf("%v %t, %v %t, the first is %v", a, now, b, again, first)
			}
			tt.then(tr)
			switch waits := tr.Waiting(a.ID) != nil; {
			case tt.due < 0:
				if waits || len(*due) > 0 {
					t.Errorf("waits %t, due %v", waits, *due)
				}
			case !waits || len(*due) != tt.due || tt.due == 1 && (*due)[0] != a:
				t.Errorf("waits %t, due %v, want %d", waits, *due, tt.due)
			}
		})
	}
}

// A reload that a worker was lost in may never end: the same one does not wait.
func TestAskAfterLoss(t *testing.T) {
	tr, due := newTracker()
	first := reload(tr, 2, 1)
	tr.WorkerLost(2)
	second, now := tr.Ask(Reload, 1)
	if !now || second == first || len(*due) > 0 {
		t.Errorf("due %t, %v", now, *due)
	}
	tr.BeginReload(Change{Generation: 3}, second)
	if _, now := tr.Ask(Reload, 1); now {
		t.Error("a third does not wait for the second")
	}
	tr.Settled(noon, 3)
	wantAnswer(t, "superseded", first, 3, nil)
	wantAnswer(t, "settled", second, 3, nil)
}

// A reload ends when its generation or a later one has settled, or has failed.
func TestReload(t *testing.T) {
	tr, _ := newTracker()
	a := reload(tr, 2, 1)
	if c, ok := tr.Now(); !ok || c.Kind != Reload || c.Generation != 2 || tr.Pending() != 2 {
		t.Errorf("%+v, %t", c, ok)
	}
	tr.Settled(noon, 1)
	tr.Failed(noon, 1, 1, errBad)
	wantOpen(t, "after another generation", a)
	b := reload(tr, 3, 2)
	wantOpen(t, "superseded", a)
	tr.Settled(noon.Add(1), 3)
	wantAnswer(t, "superseded and settled", a, 3, nil)
	wantAnswer(t, "settled", b, 3, nil)
	if last, _ := tr.Last(); *last != (Outcome{noon, noon.Add(1), 3, nil}) {
		t.Errorf("%+v", last)
	}
	if _, ok := tr.Now(); ok || tr.Pending() != 0 {
		t.Error("a change is under way after its end")
	}

	tr.Failed(noon.Add(2), 2, 3, errBad) // an older one
	if last, _ := tr.Last(); last.Err != nil {
		t.Errorf("%+v", last)
	}
	tr.Failed(noon.Add(3), 3, 3, errBad) // within its first seconds
	if last, _ := tr.Last(); *last != (Outcome{noon, noon.Add(3), 3, errBad}) {
		t.Errorf("%+v", last)
	}
	c := reload(tr, 4, 1)
	tr.Failed(noon, 4, 4, errBad)
	wantAnswer(t, "failed", c, 4, errBad)
	d := reload(tr, 5, 1)
	tr.CancelReload(noon, errBad)
	wantAnswer(t, "Reload failed", d, 5, errBad)
}

// A reload that fails before its generation begins leaves the one that was under way
// before it as it was, also if that is the same one.
func TestReloadThatNeverBegins(t *testing.T) {
	for _, how := range []any{1, 2} {
		tr, _ := newTracker()
		a := reload(tr, 2, 1)
		reload(tr, 3, 3)
		settledBoth := func(when string, b *Ticket) {
			t.Helper()
			if c, ok := tr.Now(); !ok || c.Generation != 3 || tr.Pending() != 3 {
				t.Errorf("%s: %+v, %t", when, c, ok)
			}
			wantOpen(t, when, a)
			wantAnswer(t, when, b, 4, errBad)
			if tr.Waiting(a.ID) != nil {
				t.Errorf("%s: a ticket of the reload under way waits", when)
			}
			if last, _ := tr.Last(); *last != (Outcome{noon, noon.Add(1), 4, errBad}) {
				t.Errorf("%s: %+v", when, last)
			}
		}
		for range 2 {
			b := reload(tr, 4, how)
			tr.CancelReload(noon.Add(1), errBad)
			settledBoth("failed", b)
		}
		tr.Settled(noon.Add(2), 3)
		wantAnswer(t, "settled", a, 3, nil)
		if last, _ := tr.Last(); *last != (Outcome{noon, noon.Add(2), 3, nil}) {
			t.Errorf("%+v", last)
		}
		if c, ok := tr.Now(); ok {
			t.Errorf("%+v goes on", c)
		}
	}
	tr, _ := newTracker()
	a, b := reload(tr, 2, 1), reload(tr, 3, 2)
	tr.Refuse(noon, errBad)
	wantAnswer(t, "shutdown", a, 3, errBad)
	wantAnswer(t, "shutdown", b, 3, errBad)
	if c, ok := tr.Now(); ok {
		t.Errorf("%+v goes on", c)
	}
}

// During an upgrade that is the change under way; a reload goes on.
func TestUpgrade(t *testing.T) {
	tr, _ := newTracker()
	tr.SetSuccessor(1)
	tr.EndUpgrade(noon, 0, errBad)
	r := reload(tr, 2, 1)
	for _, err := range []error{errBad, nil} {
		u, _ := tr.Ask(Upgrade, nil)
		tr.BeginUpgrade(Change{Kind: Upgrade, Generation: 2, Began: noon}, u)
		tr.SetSuccessor(4711)
		if c, _ := tr.Now(); c.Kind != Upgrade || c.Successor != 4711 {
			t.Errorf("%+v", c)
		}
		if tr.Waiting(u.ID) != nil {
			t.Error("a ticket of the upgrade under way waits")
		}
		tr.EndUpgrade(noon.Add(1), 4711, err)
		wantAnswer(t, "upgrade", u, 4711, err)
		if _, last := tr.Last(); *last != (Outcome{noon, noon.Add(1), 2, err}) {
			t.Errorf("%+v", last)
		}
	}
	wantOpen(t, "the reload", r)
	if c, ok := tr.Now(); !ok || c.Kind != Reload {
		t.Errorf("%+v", c)
	}
}

// A shutdown answers all tickets but that of an upgrade, which has an end of its
// own, and those that come later.
func TestRefuse(t *testing.T) {
	tr, _ := newTracker()
	under := reload(tr, 2, 1)
	waiting, _ := tr.Ask(Reload, 2)
	replace, _ := tr.Ask(Replace, 7)
	upgrade, _ := tr.Ask(Upgrade, nil)
	tr.BeginUpgrade(Change{Kind: Upgrade}, upgrade)
	tr.Refuse(noon, errBad)
	tr.Close(errBad)
	wantAnswer(t, "under way", under, 2, errBad)
	wantAnswer(t, "waiting", waiting, 0, errBad)
	wantAnswer(t, "replace", replace, 0, errBad)
	wantOpen(t, "upgrade", upgrade)
	late, added := tr.Ask(Reload, 3)
	wantAnswer(t, "late", late, 0, errBad)
	if added || len(tr.open) != 1 {
		t.Errorf("added %t, %d open", added, len(tr.open))
	}
	tr.EndUpgrade(noon, 0, errBad)
	wantAnswer(t, "upgrade", upgrade, 0, errBad)
	tr.Close(nil)
	if _, added := tr.Ask(Reload, 3); !added {
		t.Error("refused after it was opened again")
	}
	tr.Answer(late, 9, nil) // answered already
}
