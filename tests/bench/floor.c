/* The C floor: receive, decrypt and write, and nothing else. What a recorder in any language cannot be below. */
#define _GNU_SOURCE
#include <poll.h>
#include <srtp2/srtp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 128
#define SLOT_BYTES 2048
#define OUTPUT_BYTES (1 << 20)

struct result {
    long packets, octets, refused, wakes;
    double cpu, wall;
};

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Counts begin after `warm` seconds. pause_us = 0: wake up when the socket is readable; else read every pause_us.
   Returns 0 or an error number. */
int receive(int fd, const unsigned char *key, int profile, int output, double warm, double seconds, int pause_us,
            struct result *r)
{
    static unsigned char slots[SLOTS][SLOT_BYTES];
    struct mmsghdr headers[SLOTS];
    struct iovec vectors[SLOTS];
    srtp_policy_t policy;
    srtp_t session;

    memset(r, 0, sizeof *r);
    memset(&policy, 0, sizeof policy);
    memset(headers, 0, sizeof headers);
    if (srtp_init())
        return 1;
    srtp_crypto_policy_set_from_profile_for_rtp(&policy.rtp, (srtp_profile_t)profile);
    srtp_crypto_policy_set_from_profile_for_rtcp(&policy.rtcp, (srtp_profile_t)profile);
    policy.ssrc.type = ssrc_any_inbound;
    policy.key = (unsigned char *)key;
    policy.window_size = 1024;
    policy.allow_repeat_tx = 1;
    if (srtp_create(&session, &policy))
        return 2;
    for (int i = 0; i < SLOTS; i++) {
        vectors[i].iov_base = slots[i];
        vectors[i].iov_len = SLOT_BYTES;
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    unsigned char *buffer = malloc(OUTPUT_BYTES);
    size_t filled = 0;
    double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_THREAD_CPUTIME_ID), flushed = start;
    int warming = 1;
    while (buffer && now(CLOCK_MONOTONIC) - start < (warming ? warm : seconds)) {
        struct pollfd ready = {fd, POLLIN, 0};
        if (pause_us)
            usleep((useconds_t)pause_us);
        else
            poll(&ready, 1, 100);
        r->wakes++;
        int count;
        do {
            count = recvmmsg(fd, headers, SLOTS, MSG_DONTWAIT, NULL);
            for (int i = 0; i < count; i++) {
                unsigned char *data = slots[i];
                int length = (int)headers[i].msg_len;
                if (data[0] < 128 || data[0] > 191 || (data[1] >= 192 && data[1] <= 223))
                    continue;
                if (srtp_unprotect(session, data, &length)) {
                    r->refused++;
                    continue;
                }
                r->packets++;
                r->octets += length;
                if (filled + (size_t)length > OUTPUT_BYTES) {
                    if (write(output, buffer, filled) < 0)
                        return 3;
                    filled = 0;
                }
                memcpy(buffer + filled, data, (size_t)length);
                filled += (size_t)length;
            }
        } while (count == SLOTS);
        double t = now(CLOCK_MONOTONIC);
        if (t - flushed > 0.5) { /* as often as the recorder */
            flushed = t;
            if (write(output, buffer, filled) < 0)
                return 3;
            filled = 0;
        }
        if (warming && t - start >= warm) {
            warming = 0;
            memset(r, 0, sizeof *r);
            start = now(CLOCK_MONOTONIC);
            cpu = now(CLOCK_THREAD_CPUTIME_ID);
        }
    }
    r->cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
    r->wall = now(CLOCK_MONOTONIC) - start;
    srtp_dealloc(session);
    free(buffer);
    return 0;
}
