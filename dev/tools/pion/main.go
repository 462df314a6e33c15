// Command pion-recorder is what a Go programmer gets from Pion's save-to-disk example: the media of each track to a file
// of its own, VP8 to IVF, H264 to Annex B, Opus to Ogg, with Pion's default codecs and interceptors.
//
// It differs from the example in three points: it takes any number of tracks, its signalling is that of the benchmark's
// load, and it counts. Settings are Pion's own, but for the address: loopback, where the load is.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/intervalpli"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/pion/webrtc/v4/pkg/media/h264writer"
	"github.com/pion/webrtc/v4/pkg/media/ivfwriter"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"
)

// Over all tracks; lost are numbers that were stepped over and did not come late.
var packets, lost atomic.Int64

type result struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	Seconds    float64 `json:"seconds"`
	Packets    int64   `json:"packets"`
	Lost       int64   `json:"lost"`
	RSSMB      int64   `json:"rss_mb"`
}

func main() {
	socket := flag.String("socket", "", "where the load listens")
	output := flag.String("output", "", "folder for the files")
	warm := flag.Float64("warm", 2, "seconds before counting begins")
	seconds := flag.Float64("seconds", 10, "seconds to count")
	flag.Parse()
	if err := run(*socket, *output, duration(*warm), duration(*seconds)); err != nil {
		fmt.Fprintln(os.Stderr, "pion-recorder:", err)
		os.Exit(1)
	}
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}

func run(socket, output string, warm, seconds time.Duration) error {
	load, err := dial(socket)
	if err != nil {
		return err
	}
	defer load.Close()
	lines := bufio.NewReader(load)
	var offer struct {
		Offer string `json:"offer"`
	}
	if err := read(lines, &offer); err != nil {
		return err
	}
	peer, connected, err := newPeer(output)
	if err != nil {
		return err
	}
	answer, err := answerTo(peer, offer.Offer)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(load).Encode(map[string]string{"answer": answer}); err != nil {
		return err
	}
	select {
	case <-connected:
	case <-time.After(30 * time.Second):
		return fmt.Errorf("no connection within 30 s")
	}
	if _, err := load.Write([]byte("go\n")); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(measure(warm, seconds))
}

// dial waits for the load, which starts at the same time.
func dial(socket string) (net.Conn, error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		load, err := net.Dial("unix", socket)
		if err == nil || time.Now().After(deadline) {
			return load, err
		}
	}
}

func read(lines *bufio.Reader, into any) error {
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, into)
}

// newPeer is the example's API object with all default codecs; connected is closed when media can flow.
func newPeer(output string) (peer *webrtc.PeerConnection, connected chan struct{}, err error) {
	codecs := &webrtc.MediaEngine{}
	if err := codecs.RegisterDefaultCodecs(); err != nil {
		return nil, nil, err
	}
	interceptors := &interceptor.Registry{}
	keyFrames, err := intervalpli.NewReceiverInterceptor()
	if err != nil {
		return nil, nil, err
	}
	interceptors.Add(keyFrames)
	if err := webrtc.RegisterDefaultInterceptors(codecs, interceptors); err != nil {
		return nil, nil, err
	}
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetIPFilter(net.IP.IsLoopback)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	api := webrtc.NewAPI(webrtc.WithMediaEngine(codecs), webrtc.WithInterceptorRegistry(interceptors), webrtc.WithSettingEngine(settings))
	if peer, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		return nil, nil, err
	}
	connected = make(chan struct{})
	var once sync.Once
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			once.Do(func() { close(connected) })
		case webrtc.PeerConnectionStateFailed:
			fatal(fmt.Errorf("the connection failed"))
		default:
		}
	})
	peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		writer, err := newWriter(output, track)
		if err != nil {
			fatal(err)
		}
		saveToDisk(writer, track)
	})
	return peer, connected, nil
}

func answerTo(peer *webrtc.PeerConnection, offer string) (string, error) {
	if err := peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	answer, err := peer.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	if err := peer.SetLocalDescription(answer); err != nil {
		return "", err
	}
	<-gathered
	return peer.LocalDescription().SDP, nil
}

func newWriter(output string, track *webrtc.TrackRemote) (media.Writer, error) {
	mime := track.Codec().MimeType
	path := filepath.Join(output, fmt.Sprint(track.SSRC()))
	switch {
	case strings.EqualFold(mime, webrtc.MimeTypeOpus):
		return oggwriter.New(path+".ogg", 48000, 2)
	case strings.EqualFold(mime, webrtc.MimeTypeVP8):
		return ivfwriter.New(path+".ivf", ivfwriter.WithCodec(webrtc.MimeTypeVP8))
	case strings.EqualFold(mime, webrtc.MimeTypeH264):
		return h264writer.New(path + ".h264")
	}
	return nil, fmt.Errorf("no writer for %s", mime)
}

func saveToDisk(writer media.Writer, track *webrtc.TrackRemote) {
	defer writer.Close()
	var known sequences
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		known.count(packet.SequenceNumber)
		if err := writer.WriteRTP(packet); err != nil {
			fatal(err)
		}
	}
}

// sequences tells first arrivals from repeats: Pion hands on each answer to each of its requests.
type sequences struct {
	begun   bool
	highest uint16
	seen    [1 << 16]bool
}

func (s *sequences) count(sequence uint16) {
	if !s.begun {
		s.begun, s.highest = true, sequence-1
	}
	if step := int16(sequence - s.highest); step > 0 {
		for missing := s.highest + 1; missing != sequence; missing++ {
			s.seen[missing] = false
			lost.Add(1)
		}
		s.highest = sequence
	} else if s.seen[sequence] {
		return
	} else {
		lost.Add(-1)
	}
	s.seen[sequence] = true
	packets.Add(1)
}

func measure(warm, seconds time.Duration) result {
	time.Sleep(warm)
	before, received, gone, start := cpu(), packets.Load(), lost.Load(), time.Now()
	time.Sleep(seconds)
	return result{
		CPUSeconds: cpu() - before,
		Seconds:    time.Since(start).Seconds(),
		Packets:    packets.Load() - received,
		Lost:       lost.Load() - gone,
		RSSMB:      peakMemory(),
	}
}

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// peakMemory reads VmHWM, not ru_maxrss, which begins at what the parent had at the fork.
func peakMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fatal(err)
	}
	var kilobytes int64
	for _, line := range strings.Split(string(status), "\n") {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err == nil {
			return kilobytes / 1024
		}
	}
	return 0
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "pion-recorder:", err)
	os.Exit(1)
}
