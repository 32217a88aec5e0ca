package machine

import "github.com/prefork-go/prefork/ops/supervise"

// command carries out a command byte as runsv does. Unknown ones are ignored.
func (m *Machine) command(c byte) {
	if m.Logger && c == 'x' {
		return
	}
	if m.spawning {
		m.queue = append(m.queue, c)
		return
	}
	switch c {
	case 'u', 'o':
		if !m.final {
			m.start(c)
		}
	case 'd', 'x':
		if !m.final {
			m.want, m.once = down, false
			if c == 'x' {
				m.want = exit
			}
		}
		m.stop(c)
	case 't':
		m.stop(c)
	case 'k':
		if m.state == supervise.Finish {
			m.do(KillFinish, 0)
			return
		}
		m.signal(c)
	case 'p', 'c', 'h', 'a', 'i', 'q', '1', '2':
		m.signal(c)
	}
}

// start is the command u or o. In the wait before the next start both start at
// once; o while finish runs is noted, and nothing follows.
func (m *Machine) start(c byte) {
	m.once = c == 'o' && m.state == supervise.Down
	m.want = down
	if c == 'u' {
		m.want, m.gaveUp = up, false
	}
	m.hurry, m.blocked = true, false
}

// stop is the command t, d or x: the script t or the stop signal, then the script
// d or x.
func (m *Machine) stop(c byte) {
	if m.state != supervise.Run {
		return
	}
	if m.has('t') {
		m.actions = append(m.actions, Action{Kind: Script, Byte: 't', For: c, ID: m.id})
		return
	}
	m.terminate(c)
}

func (m *Machine) terminate(c byte) {
	m.do(Stop, 0)
	m.term = true
	m.stopped(c)
}

// stopped follows the stop signal, or the script in its place.
func (m *Machine) stopped(c byte) {
	if c != 't' && m.has(c) {
		m.do(Script, c)
	}
}

func (m *Machine) signal(c byte) {
	if m.state != supervise.Run {
		return
	}
	if c == 'p' || c == 'c' {
		m.paused = c == 'p'
	}
	if m.has(c) {
		m.do(Script, c)
		return
	}
	m.do(Signal, c)
}

func (m *Machine) scripted(ev Event) {
	if ev.Byte == 'u' {
		m.asked = m.asking && (m.want == up || m.once)
		m.asking = false
		return
	}
	if m.state != supervise.Run || ev.ID != m.id {
		return
	}
	switch {
	case ev.Byte == 'd' || ev.Byte == 'x':
	case ev.Byte != 't':
		if !ev.Replaced {
			m.do(Signal, ev.Byte)
		}
	case !ev.Replaced:
		m.terminate(ev.For)
	default:
		if ev.For != 't' {
			m.do(Signal, 'c') // a paused service could not end
		}
		m.stopped(ev.For)
	}
}

func (m *Machine) has(c byte) bool { return m.Scripts != nil && m.Scripts(c) }
