#!/bin/sh
# Makes the data set emoji-zs, emoji as four vendors draw them, out of four npm packages: about 7,600 pictures.
#
#     sh examples/emoji-zs.sh            into the folder emoji-zs
#     sh examples/emoji-zs.sh PATH       into another
#
# What lies there already is not fetched again.
set -eu

version=16.0.0
home=${1:-emoji-zs}

if ! command -v npm >/dev/null 2>&1; then
    echo "npm is not there, which fetches the packages; install Node.js with npm and run this again" >&2
    exit 1
fi

mkdir -p "$home"
home=$(cd "$home" && pwd)
for vendor in apple google twitter facebook; do
    name=emoji-datasource-$vendor
    if [ -d "$home/$name" ]; then
        echo "$name is there"
        continue
    fi
    draft=$home/.$name
    rm -rf "$draft"
    mkdir "$draft"
    echo "fetching $name $version"
    if ! (cd "$draft" && npm pack --silent "$name@$version" >/dev/null && tar -xzf "$name-$version.tgz"); then
        rm -rf "$draft"
        echo "$name $version could not be fetched; see what npm says above and run this again" >&2
        exit 1
    fi
    rm "$draft/$name-$version.tgz"
    mv "$draft" "$home/$name" # whole, or not at all
done
echo "$home is complete; look at it with: embedkit datasets check $home"
