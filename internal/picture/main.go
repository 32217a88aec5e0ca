// Command picture prints the picture of README.md as SVG: the processes and the socket
// of a pool, and a rolling reload as a timeline. From the root:
//
//	go run ./internal/picture >docs/prefork.svg
package main

import (
	"fmt"
	"os"
	"strings"
)

// The picture has a background of its own, so that it is readable on a light
// and on a dark page.
const (
	width, height = 800, 502

	page   = "#f6f8fa"
	border = "#d0d7de"
	ink    = "#1f2328"
	faint  = "#59636e"

	managerFill, managerEdge = "#fff1d6", "#9a6700"
	oldFill, oldEdge         = "#b6d7ff", "#0969da"
	newFill, newEdge         = "#aceebb", "#1a7f37"
	socketFill, socketEdge   = "#e7dcfb", "#8250df"
)

func main() {
	if _, err := os.Stdout.WriteString(draw()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// picture is the text of an SVG file.
type picture struct{ strings.Builder }

func draw() string {
	p := new(picture)
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" font-family="-apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="14">`, width, height)
	p.printf(`<title>A prefork pool, and a rolling reload</title>`)
	p.printf(`<desc>A manager starts, signals and replaces three workers. It binds one socket, from which all workers accept connections. In a rolling reload, each worker is stopped after its replacement is ready.</desc>`)
	p.printf(`<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse"><path d="M0 1 L9 5 L0 9 z" fill="%s"/></marker></defs>`, faint)
	p.printf(`<rect x="0.5" y="0.5" width="%d" height="%d" rx="8" fill="%s" stroke="%s"/>`, width-1, height-1, page, border)
	p.pool()
	p.reload()
	p.printf(`</svg>`)
	return p.String()
}

// The boxes of the pool lie between these columns.
const (
	left, right = 190, 700
	boxHeight   = 44
)

// pool draws the manager, its workers and their socket.
func (p *picture) pool() {
	const managerY, workerY, socketY = 34, 120, 206
	const workerWidth, gap = 150, 30

	p.box(left, managerY, right-left, managerFill, managerEdge)
	p.text(left+right, managerY, "<tspan font-weight=\"bold\">manager</tspan>: starts, signals, replaces workers")
	for slot := range 3 {
		x := left + slot*(workerWidth+gap)
		p.box(x, workerY, workerWidth, oldFill, oldEdge)
		p.text(2*x+workerWidth, workerY, fmt.Sprintf("<tspan font-weight=\"bold\">worker</tspan>, slot %d", slot))
		middle := x + workerWidth/2
		p.arrow(middle, managerY+boxHeight, middle, workerY)
		p.arrow(middle, socketY, middle, workerY+boxHeight)
		p.label(middle+8, workerY+boxHeight+26, "start", "accept")
	}
	p.box(left, socketY, right-left, socketFill, socketEdge)
	for i := range 4 { // the accept queue
		p.printf(`<rect x="%d" y="%d" width="10" height="16" rx="2" fill="%s"/>`, left+12+i*14, socketY+14, socketEdge)
	}
	p.text(left+right+60, socketY, "<tspan font-weight=\"bold\">one socket</tspan> with its accept queue")

	p.label(20, managerY+16, "start", "HUP, TERM, Ctrl-C")
	p.arrow(20, managerY+26, left, managerY+26)
	p.label(20, socketY+16, "start", "connections")
	p.arrow(20, socketY+26, left, socketY+26)

	const holdX = right + 28
	p.printf(`<path d="M%d %d H%d V%d H%d" fill="none" stroke="%s" stroke-width="1.5" marker-end="url(#head)"/>`,
		right, managerY+boxHeight/2, holdX, socketY+boxHeight/2, right, faint)
	p.label(holdX+7, workerY+16, "start", "binds it")
	p.label(holdX+7, workerY+34, "start", "once")
}

// reload draws a rolling reload of three slots with MaxSurge 1.
func (p *picture) reload() {
	const (
		top      = 318
		row      = 44
		lane     = 15
		begin    = 90
		end      = 780
		signal   = 200
		starting = 110 // from spawn to ready
		draining = 90  // from the stop signal to the exit
	)
	p.printf(`<line x1="20" y1="272" x2="%d" y2="272" stroke="%s"/>`, end, border)
	p.printf(`<text x="20" y="298" fill="%s"><tspan font-weight="bold">Rolling reload</tspan></text>`, ink)
	p.label(signal, 298, "middle", "HUP")
	p.label(end, 298, "end", "time →")
	for slot := range 3 {
		y := top + slot*row
		spawn := signal + slot*starting
		ready := spawn + starting
		p.label(20, y+20, "start", fmt.Sprintf("slot %d", slot))
		p.bar(begin, y, ready-begin, lane, oldFill, oldEdge, "generation 1")
		p.bar(ready, y, draining, lane, page, oldEdge, "drains")
		p.bar(spawn, y+lane+3, starting, lane, page, newEdge, "starts")
		p.bar(ready, y+lane+3, end-ready, lane, newFill, newEdge, "generation 2")
		p.printf(`<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="3"/>`, ready, y-3, ready, y+2*lane+6, ink)
	}
	p.printf(`<line x1="%d" y1="304" x2="%[1]d" y2="%d" stroke="%s" stroke-dasharray="4 3"/>`, signal, top+3*row, faint)
	p.printf(`<text x="20" y="%d" fill="%s">Black bar: the new worker is ready, and the old one is sent the stop signal.</text>`, top+3*row+18, faint)
	p.printf(`<text x="20" y="%d" fill="%s">At least three workers accept at every moment. Waiting connections stay in the queue.</text>`, top+3*row+38, faint)
}

func (p *picture) printf(format string, args ...any) {
	fmt.Fprintf(p, format+"\n", args...)
}

func (p *picture) box(x, y, w int, fill, edge string) {
	p.printf(`<rect x="%d" y="%d" width="%d" height="%d" rx="6" fill="%s" stroke="%s" stroke-width="1.5"/>`, x, y, w, boxHeight, fill, edge)
}

// text writes into the middle of a box, whose left and right add up to sum.
func (p *picture) text(sum, y int, s string) {
	p.printf(`<text x="%g" y="%d" fill="%s" text-anchor="middle">%s</text>`, float64(sum)/2, y+27, ink, s)
}

func (p *picture) label(x, y int, anchor, s string) {
	p.printf(`<text x="%d" y="%d" fill="%s" text-anchor="%s">%s</text>`, x, y, faint, anchor, s)
}

func (p *picture) arrow(x1, y1, x2, y2 int) {
	p.printf(`<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="1.5" marker-end="url(#head)"/>`, x1, y1, x2, y2, faint)
}

// bar draws a part of a worker's life.
func (p *picture) bar(x, y, w, h int, fill, edge, s string) {
	p.printf(`<rect x="%d" y="%d" width="%d" height="%d" fill="%s" stroke="%s"/>`, x, y, w, h, fill, edge)
	p.printf(`<text x="%d" y="%d" fill="%s" font-size="12">%s</text>`, x+6, y+12, ink, s)
}
