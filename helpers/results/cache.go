package results

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"sync"
)

// A Cache reads many facts.json. It keeps once what several of them have, so that thousands of runs need little memory. Nothing that
// it returns may be changed. Its zero value is ready, and goroutines may share it.
type Cache struct {
	runs      sync.Map // digest of a file → *Run. The nodes of a fleet often have the same file, byte for byte
	questions sync.Map // digest of a part of a file → *Question
	observed  sync.Map // digest of what is compared → *Question
}

// Read reads a facts.json. Two of its questions that have observed the same are the same pointer, in all runs.
func (c *Cache) Read(data []byte) (*Run, error) {
	key := sha256.Sum256(data)
	if run, ok := c.runs.Load(key); ok {
		return run.(*Run), nil
	}
	run, err := readFacts(data, c.question)
	if err != nil {
		return nil, err
	}
	kept, _ := c.runs.LoadOrStore(key, run)
	return kept.(*Run), nil
}

func (c *Cache) question(data []byte) (*Question, error) {
	key := sha256.Sum256(data)
	if q, ok := c.questions.Load(key); ok {
		return q.(*Question), nil
	}
	q, err := readQuestion(data)
	if err != nil {
		return nil, err
	}
	q = c.Same(q)
	c.questions.Store(key, q)
	return q, nil
}

// Same returns the question that the cache has for all that have observed the same. The names of the steps do not count.
func (c *Cache) Same(q *Question) *Question {
	what := struct {
		Test, Answer string
		Verdict      Verdict
		Subtests     map[string]Verdict
		Facts        map[string]string
		Clauses      []string
	}{q.Test, q.Answer, q.Verdict, map[string]Verdict{}, map[string]string{}, nil}
	for _, s := range q.Subtests {
		what.Subtests[s.Name] = s.Verdict
	}
	for _, f := range q.Facts() {
		what.Facts[f.Name] = f.Value
	}
	for _, clause := range q.Clauses() {
		text, _ := json.Marshal(clause) // strings can always be encoded
		what.Clauses = append(what.Clauses, string(text))
	}
	slices.Sort(what.Clauses)
	text, _ := json.Marshal(what)
	kept, _ := c.observed.LoadOrStore(sha256.Sum256(text), q)
	return kept.(*Question)
}
