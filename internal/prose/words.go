package prose

import (
	"regexp"
	"strings"
)

// A line is one line of text and its number in the file.
type line struct {
	number int
	text   string
}

// A word keeps its place in the joined text of its paragraph, because a sentence
// may span lines.
type word struct {
	lower      string
	line       int
	start, end int
}

var (
	// "os.File", "re-exec" and "doesn't" are one word each.
	wordPattern = regexp.MustCompile(`[A-Za-z0-9_]+(?:['’.\-][A-Za-z0-9_]+)*`)
	addresses   = regexp.MustCompile(`\bhttps?://[^\s)>\]]+`)
	sentenceEnd = regexp.MustCompile(`[.!?]["'”)\]*_]*(?:\s|$)`)
)

// paragraph counts consecutive lines that belong together.
func paragraph(file string, lines []line) Count {
	var joined strings.Builder
	var words []word
	for _, l := range lines {
		text := addresses.ReplaceAllString(l.text, "")
		for _, at := range wordPattern.FindAllStringIndex(text, -1) {
			words = append(words, word{
				lower: strings.ReplaceAll(strings.ToLower(text[at[0]:at[1]]), "’", "'"),
				line:  l.number,
				start: joined.Len() + at[0],
				end:   joined.Len() + at[1],
			})
		}
		joined.WriteString(text)
		joined.WriteByte(' ')
	}
	text := joined.String()
	count := Count{Words: len(words)}
	for i, w := range words {
		class := classify(words, i)
		if class == "" || (class == "what" || class == "where") && inQuestion(text, w.end) {
			continue
		}
		from, to := words[max(i-4, 0)].start, words[min(i+5, len(words)-1)].end
		count.Hits = append(count.Hits, Hit{class, file, w.line, text[from:to]})
	}
	return count
}

func classify(words []word, i int) string {
	at := func(i int) string {
		if i < 0 || i >= len(words) {
			return ""
		}
		return words[i].lower
	}
	switch at(i) {
	case "what", "what's":
		return "what"
	case "told":
		return "told"
	case "say", "says", "said", "saying":
		return "say"
	case "nobody", "somebody", "anybody", "nobody's", "somebody's", "anybody's":
		if at(i-1) != "user" { // the user nobody
			return "nobody"
		}
	case "anew", "meanwhile", "heed", "heeds", "heeded":
		return "anew"
	case "save":
		if at(i+1) == "for" {
			return "anew"
		}
	case "where":
		if !places[at(i-1)] && !knowing[at(i-1)] && !fixed[at(i+1)+" "+at(i+2)] {
			return "where"
		}
	case "is", "are":
		if at(i+1) == "to" && at(i+2) == "be" {
			return "tobe"
		}
	case "should", "shouldn't":
		return "should"
	}
	return ""
}

// inQuestion reports whether the sentence around an offset ends in a question
// mark.
func inQuestion(text string, offset int) bool {
	end := sentenceEnd.FindStringIndex(text[offset:])
	return end != nil && text[offset+end[0]] == '?'
}

// places are the nouns after which "where" introduces a relative clause.
var places = set(`
	address box branch cell cgroup column commit container cpu directory
	directories document file files folder function host line lines machine
	machines method module moment namespace node offset package packages page
	path paths place places point points process section socket stage state step
	system systems table thread`)

// knowing are the words after which "where" introduces an indirect question, or
// completes a preposition.
var knowing = set(`
	decide decides find finds from know knows look looks print prints report
	reports see show shows choose chooses`)

// fixed are the words after "where" in phrases about a place.
var fixed = map[string]bool{
	"it is": true, "it was": true, "it stands": true, "it belongs": true,
	"they are": true, "they were": true, "they stand": true, "they belong": true,
}

func set(words string) map[string]bool {
	found := map[string]bool{}
	for _, word := range strings.Fields(words) {
		found[word] = true
	}
	return found
}
