package control

import (
	"strconv"
	"strings"

	"github.com/prefork-go/prefork/ops/client"
)

// tail answers with the last lines of the workers of a pool, or of one slot.
func (x *exchange) tail() error {
	p, err := x.one()
	if err != nil {
		return err
	}
	slot, lines := -1, client.MaxTail
	for name, n := range map[string]*int{"slot": &slot, "lines": &lines} {
		if text := x.query.Get(name); text != "" {
			if *n, err = strconv.Atoi(text); err != nil || *n < 0 {
				return problemf(400, "%s=%.40q is not a number", name, text)
			}
		}
	}
	if x.cfg.Tail == nil {
		return problemf(404, "this program keeps no lines of its workers")
	}
	out := client.Tail{API: client.API, Pool: p.name, Lines: []client.Line{}}
	var text strings.Builder
	for _, l := range x.cfg.Tail(p.name, slot, lines) {
		out.Lines = append(out.Lines, l)
		text.WriteString(l.Text() + "\n")
	}
	if x.accepts("text/plain") {
		return answer(x.w, 200, typeText, []byte(text.String()))
	}
	return answerJSON(x.w, 200, out)
}
