package main

import (
	"bytes"
	"testing"
)

// FuzzAnswers gives what a runtime might answer to the parts that read lines of it.
func FuzzAnswers(f *testing.F) {
	for _, line := range []string{
		`{"result":{"snapshot":true,"revision":{"epoch":"1","n":"2"},"upserts":[{"id":"in-1","name":"payments"}],"removals":[]}}`,
		`{"error":{"code":"unavailable","detail":"stopping"}}`, `{"error":7}`, `{"chunk":{"n":1}}`, `{"end":true}`, `{}`, `[]`, `null`, "", "\x00",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, asJSON := range []bool{false, true} {
			var out bytes.Buffer
			a := &app{stdout: &out}
			a.global.json = asJSON
			_ = a.printUpdate(line, new(updateParts)) // it must only not panic
			if end, err := a.printChunk(line); end && err != nil && err.Error() == "" {
				t.Error("an error without words")
			}
		}
	})
}
