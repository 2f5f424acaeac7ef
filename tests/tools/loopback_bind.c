/* Preloaded into a server that can only listen on every address: makes it listen on 127.0.0.1. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*bind_call)(int, const struct sockaddr *, socklen_t);

static int is_ipv4_wildcard(const struct sockaddr *address, socklen_t size_bytes)
{
    struct sockaddr_in ipv4;
    if (address->sa_family != AF_INET || size_bytes < sizeof ipv4)
        return 0;
    memcpy(&ipv4, address, sizeof ipv4);
    return ipv4.sin_addr.s_addr == htonl(INADDR_ANY);
}

static int is_ipv6_wildcard(const struct sockaddr *address, socklen_t size_bytes)
{
    struct sockaddr_in6 ipv6;
    if (address->sa_family != AF_INET6 || size_bytes < sizeof ipv6)
        return 0;
    memcpy(&ipv6, address, sizeof ipv6);
    return IN6_IS_ADDR_UNSPECIFIED(&ipv6.sin6_addr);
}

/* An IPv6 wildcard is refused, not rewritten: the server is told to use IPv4 only, so one means
   that it was not, and it must fail rather than be reachable from outside. */
int bind(int socket_fd, const struct sockaddr *address, socklen_t size_bytes)
{
    bind_call real_bind = (bind_call)dlsym(RTLD_NEXT, "bind");
    if (is_ipv6_wildcard(address, size_bytes)) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    if (!is_ipv4_wildcard(address, size_bytes))
        return real_bind(socket_fd, address, size_bytes);
    struct sockaddr_in loopback;
    memcpy(&loopback, address, sizeof loopback);
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return real_bind(socket_fd, (const struct sockaddr *)&loopback, sizeof loopback);
}
