package safetext

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestURLShowsNoSecret(t *testing.T) {
	for in, want := range map[string]string{
		"https://host/film.mp4":                                   "https://host/***/film.mp4",
		"https://user:pa55word@host:8443/film.mp4?sig=abcdef":     "https://***@host:8443/***/film.mp4",
		"https://host/9f86d081884c7d659a2feaa0c55ad015/clip.mp4":  "https://host/***/clip.mp4",
		"https://host/v/9f86d081884c7d659a2feaa0c55ad015.mp4":     "https://host/***",
		"https://host/watch?v=clip.mp4":                           "https://host/***",
		"HTTPS://host":                                            "https://host",
		"http://host/":                                            "http://host/",
		"http://host?key=x":                                       "http://host/***",
		"rtmp://h:1935/live/mykey1234":                            "rtmp://h:1935/***",
		"rtmp://%zz:secret@h/x":                                   "rtmp://***@h/***",
		"srt://[2001:db8::1]:9000?passphrase=opensesame":          "srt://[2001:db8::1]:9000/***",
		"https://user:passw":                                      "https://***",
		"https://user:1234567 @host/x.mp4":                        "https://***@host/***",
		"no URL":                                                  "***",
		"https://host/***/film.mp4":                               "https://host/***/film.mp4",
		"https://a@b:c@host/x\\@y":                                "https://***@host/***",
		"https://host/season-1/episode-02-the-return-of-1984.mkv": "https://host/***/episode-02-the-return-of-1984.mkv",
	} {
		if got := URL(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestURLsOfOthersShowSchemeAndHost(t *testing.T) {
	for in, want := range map[string]string{
		"opening 'https://cdn/k3y/seg1.ts?sig=abc' failed": "opening 'https://cdn/***' failed",
		"see https://host/a, then rtmp://h/live/key.":      "see https://host/***, then rtmp://h/***.",
		"(https://host)": "(https://host)",
		"file:///var/film.mp4 and file:/var/film.mp4":        "file:///var/film.mp4 and file:/var/film.mp4",
		`{"url":"https://u:p@host/x"}`:                       `{"url":"https://***@host/***"}`,
		"nothing here: 10://":                                "nothing here: 10://",
		"input https://host/***/film.mp4: HTTP 404":          "input https://host/***/film.mp4: HTTP 404",
		"tls+srt://host:1?pass=x;mode=y and http://[::1]:5/": "tls+srt://host:1/*** and http://[::1]:5/",
		`"//bob:hunter2222@host/film.mp4": no such file`:     `"//***@host/film.mp4": no such file`,
		"/films/x.mp4?a=b&X-Amz-Signature=0a1b&c=d (404)":    "/films/x.mp4?a=b&X-Amz-Signature=***&c=d (404)",
		"x.mp4?jwt=abc, y.mp4?sessionid=def":                 "x.mp4?jwt=*** y.mp4?sessionid=***",
		"/films//me@home/who? me=you.mp4":                    "/films//***@home/who? me=you.mp4",
		"/films/2 + 2 = 4?.mp4 & more":                       "/films/2 + 2 = 4?.mp4 & more",
	} {
		if got := URLs(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestSecretsAreRemovedInEachEncoding(t *testing.T) {
	var s Secrets
	s.AddURL("rtmp://h:1935/live/mykey1234")
	s.AddURL("https://us%40er:pa%2F55word@h/film.mp4?sig=ab+cd/ef=&mode=caller&name=something-long")
	s.AddURL("rtmp://h/live/abc")
	s.AddURL("https://cdn.example/9f86d081884c7d659a2feaa0c55ad015/clip.mp4")
	s.AddParameters("", map[string]any{
		"stream_key": "stream-key-1?auth=au7h", "outputs": []any{map[string]any{"stream_key": "second-key"}},
		"whatever": map[string]any{"deep": "srt://h:1?passphrase=open sesame"},
	})
	for _, secret := range []string{
		"mykey1234", "rtmp://h:1935/live/mykey1234", "pa%2F55word", "pa/55word", "pa%252F55word", "pa%2f55word", "us%40er:pa%2F55word", "us@er:pa/55word",
		base64.StdEncoding.EncodeToString([]byte("us@er:pa/55word")), base64.URLEncoding.EncodeToString([]byte("us@er:pa/55word")),
		"ab+cd/ef=", "ab%2Bcd%2Fef%3D", "ab%252Bcd%252Fef%253D", "ab%2bcd%2fef%3d", "something-long", "9f86d081884c7d659a2feaa0c55ad015",
		"stream-key-1", "au7h", "second-key", "open sesame", "open%20sesame", "open+sesame",
	} {
		for _, around := range []string{"%", "unknown stream %!", "a/%/b", "x=%&y"} {
			text := strings.ReplaceAll(around, "%", secret)
			if got := s.Redact(text); strings.Contains(got, secret) {
				t.Errorf("%q becomes %q", text, got)
			}
		}
	}
	for _, plain := range []string{"abc is too short to be hidden alone", "mode=caller", "nothing here", "live"} {
		if got := s.Redact(plain); got != plain {
			t.Errorf("%q becomes %q", plain, got)
		}
	}
	var none Secrets
	if got := none.Redact("as it is"); got != "as it is" {
		t.Error(got)
	}
}

func TestSecretsOutsideOfURLsAreRemoved(t *testing.T) {
	for _, test := range []struct {
		name, value string
		secrets     []string
		stays       string
	}{
		{"input", "//bob:hunter2222@host/film.mp4", []string{"bob:hunter2222", "hunter2222"}, "/film.mp4"},
		{"input", "/films/x.mp4?X-Amz-Signature=0a1b2c3d&b=c", []string{"0a1b2c3d"}, "/films/x.mp4"},
		{"authorization", "Bearer t0ken-x", []string{"Bearer t0ken-x", "t0ken-x"}, "Bearer"},
		{"Authorization", "Basic Ym9iOmh1bnRlcjIyMjI=", []string{"Ym9iOmh1bnRlcjIyMjI=", "hunter2222"}, "Basic"},
		{"Cookie", `a=first-value; sid="second-value"`, []string{"first-value", "second-value"}, "sid"},
		{"jwt", "eyJhbGciOi", []string{"eyJhbGciOi"}, "jwt"}, {"my_session", "abcdefgh", []string{"abcdefgh"}, "my_session"}, {"bearer", "abcdefgh", []string{"abcdefgh"}, "bearer"},
	} {
		var s Secrets
		s.AddParameters("", map[string]any{test.name: test.value})
		for _, secret := range test.secrets {
			if got := s.Redact("x " + secret + " y"); strings.Contains(got, secret) {
				t.Errorf("%s %q: %q is shown as %q", test.name, test.value, secret, got)
			}
		}
		if got := s.Redact(test.stays); got != test.stays {
			t.Errorf("%s %q: %q is shown as %q", test.name, test.value, test.stays, got)
		}
	}
}

func TestNoEncodingOfAPasswordSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		password := rapid.StringMatching(`[A-Za-z0-9/+@:=&%_.!-]{6,24}`).Draw(t, "password")
		var s Secrets
		s.AddURL("https://user:" + url.QueryEscape(password) + "@host/film.mp4")
		for _, form := range []string{
			password, url.QueryEscape(password), url.PathEscape(password), url.QueryEscape(url.QueryEscape(password)),
			base64.StdEncoding.EncodeToString([]byte("user:" + password)),
		} {
			if got := s.Redact("x " + form + " y"); strings.Contains(got, form) {
				t.Fatalf("%q is shown as %q", form, got)
			}
		}
	})
}

func TestLineHasNoCharactersThatTerminalsObey(t *testing.T) {
	bad := "a\x1b[2Jb\u009b31mc\u202ed\u2066e\u2028f\u2029g\u0085h\rk\nl\tm\x00n\xffo\u00a0p"
	if got, want := Line(bad), "a?[2Jb?31mc?d?e f g h k l m?n\ufffdo p"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Lines("a\r\nb\tc\rd\u009be"), "a\nb\tc\nd?e"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		for _, r := range Line(rapid.String().Draw(t, "text")) {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q is not printable", r)
			}
		}
	})
}

func TestJSONKeepsItsValue(t *testing.T) {
	raw := []byte("{\n\t\"a\u009b\u202e\u2028\U000e0001\u00e4\": \"\u00a0\u007f\"\r\n}")
	if got, want := string(JSON(raw)), "{\n\t\"a\\u009b\\u202e\\u2028\\udb40\\udc01\u00e4\": \"\\u00a0\\u007f\"\r\n}"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		raw, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(JSON(raw), &back); err != nil || back != strings.ToValidUTF8(text, "\ufffd") {
			t.Fatalf("%q becomes %q, %v", text, back, err)
		}
	})
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{"": "", "abc": "abc", "abcd": "abcd", "abcde": "abc…", "äöüß": "äöüß", "äöüßx": "äöü…"} {
		if got := Shorten(in, 4); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := Shorten(strings.Repeat("x", 1<<20), 10); utf8.RuneCountInString(got) != 10 {
		t.Errorf("got %q", got)
	}
}
